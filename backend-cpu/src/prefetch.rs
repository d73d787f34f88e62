//! A hint to the processor.
//!
//! A module with unsafe code: the instruction takes a pointer, though it reads nothing through it.
#![allow(unsafe_code)]

/// Asks for the cache line of an element, which may lie past the end, to be brought near.
#[inline(always)]
pub(crate) fn prefetch<T>(data: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which accesses no memory and cannot fault whatever the address. Every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(data.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at);
}
