//! Memory from the operating system, in large pages where they pay.
//!
//! The CPU's prefetching of a stream stops at the end of a 4 KiB page, and translating the next
//! page's address takes time. Matrices that are read again and again gain from pages of 2 MiB;
//! Linux provides them on request. Other memory does not ask for them: a fresh large page has to be
//! found, made contiguous and cleared as a whole, at the first access to any part of it.
//!
//! This module contains unsafe code: it allocates memory, and a block owns its memory by pointer.
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

/// The size of a large page, on CPUs that have them.
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
    /// The first line, in the memory that begins at `memory`.
    start: NonNull<Line>,
    memory: NonNull<u8>,
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
        if lines == 0 {
            return Some(Self {
                pages,
                ..Self::default()
            });
        }
        let (layout, align) = request(lines, pages)?;
        // SAFETY: the size is not 0.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: `request` leaves room before the first line.
        let start = unsafe { memory.add(memory.align_offset(align)) }.cast::<Line>();
        let block = Self {
            start,
            memory,
            lines,
            pages,
        };
        #[cfg(all(target_os = "linux", not(miri)))]
        if pages == Pages::Large {
            let bytes = size_of_val(&*block) / LARGE * LARGE;
            // SAFETY: the call changes the size of the block's pages, not their contents. It has no
            // effect if the system has none.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Some(block)
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }
}

/// The memory to ask the allocator for, and the alignment of the block in it.
///
/// Allocators take much memory from the system, which provides it zeroed, page by page at the first
/// access. But where the alignment is unusual, they clear it by hand. So a block of much memory is
/// requested without an alignment, with room to begin at one.
fn request(lines: usize, pages: Pages) -> Option<(Layout, usize)> {
    let layout = Layout::array::<Line>(lines).ok()?;
    if layout.size() < LARGE {
        return Some((layout, layout.align()));
    }
    let align = match pages {
        Pages::Small => layout.align(),
        Pages::Large => LARGE,
    };
    let layout = Layout::from_size_align(layout.size().checked_add(align)?, 1).ok()?;
    Some((layout, align))
}

impl Default for Block {
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            memory: NonNull::dangling(),
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
        if self.lines > 0
            && let Some((layout, _)) = request(self.lines, self.pages)
        {
            // SAFETY: the allocator returned the memory for this layout.
            unsafe { dealloc(self.memory.as_ptr(), layout) };
        }
    }
}

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
