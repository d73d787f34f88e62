//! Memory from the operating system, in large pages where they pay.
//!
//! The CPU's prefetching of a stream stops at the end of a 4 KiB page, and translating the next
//! page's address takes time. Matrices that are read again and again gain from pages of 2 MiB;
//! Linux provides them on request. Other memory does not ask for them: a fresh large page has to be
//! found, made contiguous and cleared as a whole, at the first access to any part of it.
//!
//! This module contains unsafe code: memory is mapped by system calls, and owned by pointer.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use bytemuck::{Pod, Zeroable};

/// A cache line: the unit of allocation, so that every buffer is aligned to 64 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// The size of a large page, on CPUs that have them. Blocks of this size or more are mapped, on
/// Linux: mapped memory is zero without a write, and each page is first touched by the thread that
/// uses it. The allocator clears memory of this alignment by hand.
const LARGE: usize = 2 << 20;

/// The pages that a block asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pages {
    #[default]
    Small,
    Large,
}

/// A block of memory with one owner.
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<Line>,
    lines: usize,
    pages: Pages,
}

// SAFETY: a block is the only owner of its memory, like a box.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// A block of zeros; `None` if the system is out of memory.
    pub(crate) fn zeroed(lines: usize, pages: Pages) -> Option<Self> {
        let layout = Layout::array::<Line>(lines).ok()?;
        let start = match layout.size() {
            0 => NonNull::dangling(),
            size if is_mapped(size) => map(size, pages)?.cast(),
            // SAFETY: the size is not 0.
            _ => NonNull::new(unsafe { alloc_zeroed(layout) })?.cast(),
        };
        Some(Self {
            start,
            lines,
            pages,
        })
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }
}

impl Default for Block {
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            lines: 0,
            pages: Pages::Small,
        }
    }
}

impl Deref for Block {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the block owns as many lines, which are initialized.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.lines) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above, and the block is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.lines) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let layout = Layout::for_value(&**self);
        match layout.size() {
            0 => {}
            // SAFETY: `map` returned the block for this size, and nothing refers to it any more.
            size if is_mapped(size) => unsafe { unmap(self.start.cast(), size) },
            // SAFETY: the allocator returned the block for this layout.
            _ => unsafe { dealloc(self.start.as_ptr().cast(), layout) },
        }
    }
}

/// Whether blocks of this size are mapped. Miri checks allocations better than mappings.
fn is_mapped(bytes: usize) -> bool {
    cfg!(all(target_os = "linux", not(miri))) && bytes >= LARGE
}

/// Maps memory; `None` if the system is out of memory. Mapped sizes are whole large pages, and so
/// whole pages on every CPU. The last page takes no memory before it is touched.
#[cfg(target_os = "linux")]
fn map(bytes: usize, pages: Pages) -> Option<NonNull<u8>> {
    let size = bytes.checked_next_multiple_of(LARGE)?;
    // Room to begin at a large page.
    let all = size.checked_add(LARGE)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the system's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), all, access, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let skipped = start.cast::<u8>().align_offset(LARGE);
    // SAFETY: the block lies within the mapping, between two parts that nothing refers to. The last
    // call changes the size of the block's pages, not their contents.
    unsafe {
        let block = start.cast::<u8>().add(skipped);
        if skipped > 0 {
            libc::munmap(start, skipped);
        }
        libc::munmap(block.add(size).cast(), LARGE - skipped);
        if pages == Pages::Large {
            // Has no effect if the system has none.
            libc::madvise(block.cast(), bytes / LARGE * LARGE, libc::MADV_HUGEPAGE);
        }
        NonNull::new(block)
    }
}

/// # Safety
/// `start` must be what [`map`] returned for `bytes`, and nothing may refer to it.
#[cfg(target_os = "linux")]
unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: see above.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes.next_multiple_of(LARGE)) };
}

#[cfg(not(target_os = "linux"))]
fn map(_: usize, _: Pages) -> Option<NonNull<u8>> {
    None
}

#[cfg(not(target_os = "linux"))]
unsafe fn unmap(_: NonNull<u8>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_size_are_zero_at_first() {
        let large = LARGE / size_of::<Line>();
        let sizes = [0, 1, 64, large - 1, large, large + 1, 5 * large / 2];
        // Miri is slow.
        let fits = |lines: &usize| !cfg!(miri) || *lines < 100;
        for lines in sizes.into_iter().filter(fits) {
            for pages in [Pages::Small, Pages::Large] {
                let mut block = Block::zeroed(lines, pages).unwrap();
                assert_eq!((block.len(), block.pages()), (lines, pages));
                let numbers: &mut [u64] = bytemuck::cast_slice_mut(&mut block);
                assert!(numbers.iter().all(|&x| x == 0));
                numbers.fill(7);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where an allocation fails")]
    fn too_much_is_no_block() {
        for lines in [usize::MAX, isize::MAX as usize / size_of::<Line>() - LARGE] {
            assert!(Block::zeroed(lines, Pages::Large).is_none());
        }
    }
}
