//! A memory pool for buffers: freed blocks are kept for reuse.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{Error, Memory, Result};
use bytemuck::Pod;

use crate::pages::{Block, Line, Pages};

/// Minimum amount by which memory in use and kept memory together may exceed the peak use.
const SLACK: usize = 64 << 20;

/// The memory of one device.
///
/// Sizes are rounded up to size classes, four per power of two, so that at most a fifth of a block
/// is unused and a freed block fits many other requests. Memory in use and kept memory together
/// never exceed 1.5 times the peak use, or the peak plus 64 MiB if that is more. Beyond this limit,
/// the blocks that were freed the longest time ago are returned to the operating system.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Free blocks by class and pages, each with the time when it was freed; newest at the back.
    shelves: Vec<VecDeque<(u64, Block)>>,
    clock: u64,
    memory: Memory,
}

/// Rounds up to the next size class: its size in lines and its index in the shelves.
fn class(lines: usize, pages: Pages) -> (usize, usize) {
    let step = lines.ilog2().saturating_sub(2);
    let size = lines.div_ceil(1 << step) << step;
    // Rounding up may reach the next power of two.
    let step = size.ilog2().saturating_sub(2);
    let class = size.ilog2() as usize * 4 + ((size >> step) & 3);
    (size, 2 * class + usize::from(pages == Pages::Large))
}

impl Pool {
    /// A panic while the lock is held leaves the state consistent, so poisoning is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Statistics of the pool. Sizes include rounding up.
    pub(crate) fn memory(&self) -> Memory {
        self.state().memory
    }

    /// A block of at least `bytes` bytes, with unspecified contents.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Storage> {
        self.take_in(Pages::Small, bytes)
    }

    fn take_in(self: &Arc<Self>, pages: Pages, bytes: usize) -> Result<Storage> {
        let lines = bytes.div_ceil(size_of::<Line>());
        if lines == 0 {
            return Ok(Storage {
                block: Block::default(),
                pool: self.clone(),
            });
        }
        let (size, shelf) = class(lines, pages);
        let bytes = size * size_of::<Line>();
        let mut state = self.state();
        let found = state.shelves.get_mut(shelf).and_then(VecDeque::pop_back);
        let block = match found {
            Some((_, block)) => {
                state.memory.pooled -= bytes;
                block
            }
            None => {
                // Allocation may take long; other threads can use the pool meanwhile.
                drop(state);
                let block = self.ask_system(size, pages)?;
                state = self.state();
                state.memory.system_allocations += 1;
                block
            }
        };
        state.memory.in_use += bytes;
        state.memory.peak = state.memory.peak.max(state.memory.in_use);
        drop(state);
        Ok(Storage {
            block,
            pool: self.clone(),
        })
    }

    fn ask_system(&self, lines: usize, pages: Pages) -> Result<Block> {
        if let Some(block) = Block::zeroed(lines, pages) {
            return Ok(block);
        }
        self.release();
        Block::zeroed(lines, pages).ok_or_else(|| Error::OutOfMemory {
            device: "cpu".to_owned(),
            requested: lines.saturating_mul(size_of::<Line>()),
            free: 0,
            memory: self.memory(),
        })
    }

    /// Returns all free blocks to the system.
    pub(crate) fn release(&self) {
        let kept = {
            let mut state = self.state();
            state.memory.pooled = 0;
            mem::take(&mut state.shelves)
        };
        // Freeing may take long; other threads can use the pool meanwhile.
        drop(kept);
    }

    fn give_back(&self, block: Block) {
        if block.is_empty() {
            return;
        }
        let bytes = size_of_val(&*block);
        let (_, shelf) = class(block.len(), block.pages());
        let mut released = Vec::new();
        let mut state = self.state();
        state.memory.in_use -= bytes;
        state.memory.pooled += bytes;
        if state.shelves.len() <= shelf {
            state.shelves.resize_with(shelf + 1, VecDeque::new);
        }
        state.clock += 1;
        let now = state.clock;
        state.shelves[shelf].push_back((now, block));
        let limit = state.memory.peak + (state.memory.peak / 2).max(SLACK);
        while state.memory.in_use + state.memory.pooled > limit {
            let oldest = state
                .shelves
                .iter_mut()
                .filter(|shelf| !shelf.is_empty())
                .min_by_key(|shelf| shelf.front().map(|(time, _)| *time));
            let Some((_, block)) = oldest.and_then(VecDeque::pop_front) else {
                break;
            };
            state.memory.pooled -= size_of_val(&*block);
            released.push(block);
        }
        // Unlock before `released` is freed.
        drop(state);
    }

    /// A block for `len` numbers, with unspecified contents, that no tensor refers to.
    pub(crate) fn scratch<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Scratch<T>> {
        self.scratch_in(Pages::Small, len)
    }

    /// The same for a matrix that is read again and again.
    pub(crate) fn packed<T: Pod>(self: &Arc<Self>, len: usize) -> Result<Scratch<T>> {
        self.scratch_in(Pages::Large, len)
    }

    fn scratch_in<T: Pod>(self: &Arc<Self>, pages: Pages, len: usize) -> Result<Scratch<T>> {
        Ok(Scratch {
            storage: self.take_in(pages, len.saturating_mul(size_of::<T>()))?,
            len,
            element: std::marker::PhantomData,
        })
    }
}

/// A block of memory with one owner. Returns to its pool when dropped.
#[derive(Debug)]
pub(crate) struct Storage {
    block: Block,
    pool: Arc<Pool>,
}

impl Storage {
    /// The block as a slice of `T`; it may be longer than requested.
    pub(crate) fn elements<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.block)
    }

    /// The block as a mutable slice of `T`.
    pub(crate) fn elements_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.block)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.pool.give_back(mem::take(&mut self.block));
    }
}

/// Working memory of a kernel.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    storage: Storage,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Pod> std::ops::Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.storage.elements()[..self.len]
    }
}

impl<T: Pod> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.storage.elements_mut()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_distinct_and_waste_little() {
        let mut last = (0, 0);
        for lines in 1..10_000 {
            let (size, shelf) = class(lines, Pages::Small);
            assert!(size >= lines && size <= lines + lines / 4);
            assert_eq!(
                class(size, Pages::Small),
                (size, shelf),
                "a size class maps to itself"
            );
            assert!(size >= last.0 && (size == last.0) == (shelf == last.1));
            last = (size, shelf);
        }
    }

    #[test]
    fn freed_memory_is_reused_and_counted() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(1000).unwrap();
        assert_eq!((pool.memory().in_use, pool.memory().pooled), (1024, 0));
        drop(first);
        assert_eq!((pool.memory().in_use, pool.memory().pooled), (0, 1024));
        let again = pool.take(1024).unwrap();
        assert_eq!(pool.memory().system_allocations, 1);
        let other = pool.take(10_000).unwrap();
        let memory = pool.memory();
        assert_eq!((memory.in_use, memory.peak), (1024 + 10_240, 1024 + 10_240));
        assert_eq!((memory.pooled, memory.system_allocations), (0, 2));
        drop((again, other));
        assert_eq!(pool.memory().peak, 1024 + 10_240);
    }

    #[test]
    fn blocks_are_reused_for_their_kind_of_pages() {
        let pool = Arc::new(Pool::default());
        drop(pool.packed::<u8>(1000).unwrap());
        drop(pool.scratch::<u8>(1000).unwrap());
        assert_eq!(pool.memory().system_allocations, 2);
        drop(pool.packed::<u8>(1000).unwrap());
        drop(pool.scratch::<u8>(1000).unwrap());
        assert_eq!(pool.memory().system_allocations, 2);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too large")]
    fn what_is_kept_has_a_limit() {
        let pool = Arc::new(Pool::default());
        for i in 1..40 {
            drop(pool.take(i << 20).unwrap());
        }
        let memory = pool.memory();
        assert!(memory.pooled <= memory.peak + SLACK);
        assert!(memory.pooled >= SLACK);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where an allocation fails")]
    fn too_much_is_an_error_and_the_pool_stays_usable() {
        let pool = Arc::new(Pool::default());
        let error = pool.take(isize::MAX as usize - 4096).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }));
        assert_eq!(pool.memory().in_use, 0);
        assert!(pool.take(64).is_ok());
    }

    #[test]
    fn a_panic_under_the_lock_does_not_spread() {
        let pool = Arc::new(Pool::default());
        let other = pool.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = other.state.lock().unwrap();
            panic!("while the lock is held");
        })
        .join();
        assert!(panicked.is_err());
        assert!(pool.take(64).is_ok());
    }
}
