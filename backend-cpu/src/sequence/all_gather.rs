//! All-gather between threads that split the hidden units of a layer: each computes some units, and
//! all need all of them for the next step.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::{hint, thread};

use backend_api::{Error, Result};
use smallvec::SmallVec;

/// Polls of a waiting thread between two calls of [`thread::yield_now`].
const SPINS: usize = 2000;

/// An all-gather: each thread writes its columns of a matrix and reads the whole matrix, once per
/// round.
///
/// Each thread has two blocks and alternates between them, so it is at most one round ahead of the
/// others: before it overwrites a block, two rounds later, all threads have arrived in the round
/// between and have therefore read the block. No thread ever waits for a lock.
pub(super) struct AllGather<T> {
    members: SmallVec<[(Range<usize>, [RwLock<Vec<T>>; 2]); 2]>,
    /// The number of blocks written so far, by all threads.
    arrived: AtomicUsize,
    /// Whether a thread has failed and will not arrive again.
    left: AtomicBool,
}

impl<T: Copy> AllGather<T> {
    /// Creates an gather; `columns` holds the columns of each thread.
    pub(super) fn new(columns: &[Range<usize>]) -> Self {
        let member = |columns: &Range<usize>| (columns.clone(), Default::default());
        Self {
            members: columns.iter().map(member).collect(),
            arrived: AtomicUsize::new(0),
            left: AtomicBool::new(false),
        }
    }

    /// Writes `mine`, one thread's columns of all rows, and waits until `all`, `[rows, n]`, is
    /// complete. Several matrices side by side count as further rows, `[rows, parts, n]`: part
    /// after part within a row.
    ///
    /// # Errors
    /// Another thread has failed.
    pub(super) fn all_gather(
        &self,
        round: usize,
        member: usize,
        mine: &[T],
        (all, n): (&mut [T], usize),
    ) -> Result<()> {
        {
            let block = &self.members[member].1[round % 2];
            let mut block = block.write().unwrap_or_else(PoisonError::into_inner);
            block.clear();
            block.extend_from_slice(mine);
        }
        self.arrived.fetch_add(1, Ordering::Release);
        let expected = (round + 1) * self.members.len();
        let mut spins = 0;
        while self.arrived.load(Ordering::Acquire) < expected {
            if self.left.load(Ordering::Relaxed) {
                return Err(Error::argument("sequence", "a thread", "has failed"));
            }
            spins += 1;
            if spins % SPINS == 0 {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
        for (columns, blocks) in &self.members {
            let block = blocks[round % 2]
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let rows = block.chunks_exact(columns.len());
            for (to, from) in all.chunks_exact_mut(n).zip(rows) {
                to[columns.clone()].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// A guard that signals a failure to the other threads if it is dropped before
    /// [`Member::done`].
    pub(super) fn member(&self) -> Member<'_> {
        Member {
            left: &self.left,
            done: false,
        }
    }
}

/// A thread's membership in an gather.
pub(super) struct Member<'a> {
    left: &'a AtomicBool,
    done: bool,
}

impl Member<'_> {
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.left.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_reads_the_whole_matrix_in_every_round() {
        let ranges = [0..1, 1..4, 4..5];
        let gather = AllGather::new(&ranges);
        thread::scope(|scope| {
            for (i, units) in ranges.into_iter().enumerate() {
                let gather = &gather;
                scope.spawn(move || {
                    let member = gather.member();
                    for round in 0..500 {
                        let number = |r: usize, u: usize| (round * 100 + r * 10 + u) as f32 / 7.0;
                        let mine: Vec<f32> = (0..2)
                            .flat_map(|r| units.clone().map(move |u| number(r, u)))
                            .collect();
                        let mut all = [0.0f32; 10];
                        gather.all_gather(round, i, &mine, (&mut all, 5)).unwrap();
                        let expected: Vec<f32> = (0..10).map(|i| number(i / 5, i % 5)).collect();
                        assert_eq!(all[..], expected);
                    }
                    member.done();
                });
            }
        });
    }

    #[test]
    fn a_failed_thread_ends_the_wait_of_the_others() {
        let gather = AllGather::new(&[0..1, 1..2]);
        thread::scope(|scope| {
            scope.spawn(|| drop(gather.member()));
            let exchanged = gather.all_gather(0, 0, &[1.0f32], (&mut [0.0; 2], 2));
            assert!(exchanged.is_err());
        });
    }
}
