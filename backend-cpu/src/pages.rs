//! Memory from the operating system, in large pages where available.
//!
//! The CPU's prefetching of a stream stops at the end of a 4 KiB page, and translating the next
//! page's address takes time. Products whose weights exceed the cache gain a tenth from pages of 2
//! MiB (measured). Linux provides them on request.
//!
//! This module contains unsafe code: raw pointers, and a system call that takes an address.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc};
use std::ptr;

use bytemuck::{Pod, Zeroable};

/// A cache line: the unit of allocation, so that every buffer is aligned to 64 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// The size of a large page, on CPUs that have them.
const LARGE: usize = 2 << 20;

/// A block of zeros; `None` if the system is out of memory.
pub(crate) fn zeroed(lines: usize) -> Option<Box<[Line]>> {
    if lines == 0 {
        return Some(Box::default());
    }
    let layout = Layout::array::<Line>(lines).ok()?;
    // SAFETY: the size is not 0. The whole block is written before it is used, and zeros are valid
    // lines. The box frees the block with the same layout.
    unsafe {
        let block = alloc(layout).cast::<Line>();
        if block.is_null() {
            return None;
        }
        // The request must come before the first write: a page keeps the size it has when it is
        // first touched.
        ask_for_large(block.cast(), layout.size());
        block.write_bytes(0, lines);
        Some(Box::from_raw(ptr::slice_from_raw_parts_mut(block, lines)))
    }
}

/// Requests large pages for a block. Has no effect if the system has none.
///
/// # Safety
/// `block` must point to at least `bytes` bytes.
unsafe fn ask_for_large(block: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let skipped = block.align_offset(LARGE);
        let size = bytes.saturating_sub(skipped) / LARGE * LARGE;
        // Miri does not have this call.
        if size > 0 && !cfg!(miri) {
            // SAFETY: these are whole pages within the block. The call changes their page size, not
            // their contents.
            unsafe { libc::madvise(block.add(skipped).cast(), size, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, bytes, LARGE);
}
