//! Memory from the system, in large pages where it has them.
//!
//! A page of 4 KiB ends what the processor foresees of a stream, and finding the next one takes time: products whose
//! weights do not fit a cache gain a tenth from pages of 2 MiB (measured), which Linux gives to those who ask.
//!
//! A module with unsafe code: memory by pointer, and a system call that takes an address.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc};
use std::ptr;

use crate::storage::Line;

/// A large page, on the processors that have it.
const LARGE: usize = 2 << 20;

/// A block of zeros; `None` if the system has no memory left.
pub(crate) fn zeroed(lines: usize) -> Option<Box<[Line]>> {
    if lines == 0 {
        return Some(Box::default());
    }
    let layout = Layout::array::<Line>(lines).ok()?;
    // SAFETY: the size is not 0. The block is written as a whole before it is used, zeros are valid lines, and the box gives it
    // back with the same layout.
    unsafe {
        let block = alloc(layout).cast::<Line>();
        if block.is_null() {
            return None;
        }
        // Before it is touched, as a page stays as large as it was then.
        ask_for_large(block.cast(), layout.size());
        block.write_bytes(0, lines);
        Some(Box::from_raw(ptr::slice_from_raw_parts_mut(block, lines)))
    }
}

/// Asks for large pages in a block. Nothing happens if the system has none.
///
/// # Safety
/// The block has so many bytes.
unsafe fn ask_for_large(block: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let skipped = block.align_offset(LARGE);
        let size = bytes.saturating_sub(skipped) / LARGE * LARGE;
        if size > 0 {
            // SAFETY: whole pages within the block. The call changes how they are backed, not what they hold.
            unsafe { libc::madvise(block.add(skipped).cast(), size, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, bytes, LARGE);
}
