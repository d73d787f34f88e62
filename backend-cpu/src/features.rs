//! Instruction sets that this CPU has, beyond those that `pulp` chooses between.
//!
//! This module contains unsafe code: a system call that requests AMX.
#![allow(unsafe_code)]

/// Whether this CPU has AMX and the operating system lets the process use it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_amx() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let vectors = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512bf16");
        // Leaf 7: AMX-BF16 and AMX-TILE.
        vectors && {
            let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
            features >> 22 & 1 == 1 && features >> 24 & 1 == 1 && request_amx()
        }
    })
}

/// AMX exists on x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn has_amx() -> bool {
    false
}

/// Requests AMX for the process: Linux lets a process use tiles only after a request, made once for
/// all threads.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request_amx() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the system call takes two numbers and changes no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn request_amx() -> bool {
    false
}

/// Whether this CPU multiplies bfloat16 numbers (AVX-512-BF16).
pub(crate) fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
