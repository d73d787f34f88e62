//! Prefetching.
//!
//! This module contains unsafe code: the instruction takes a pointer, but does not dereference it.
#![allow(unsafe_code)]

/// Prefetches the cache line of an element into L2; `at` may lie past the end.
#[inline(always)]
pub(crate) fn prefetch<T>(data: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is a hint that accesses no memory and cannot fault at any address.
        // Every x86-64 CPU has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(data.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at);
}
