//! Threads that share the units of a layer: each computes some, and all need all of them for the next step.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::{hint, thread};

use backend_api::{Error, Result};
use smallvec::SmallVec;

/// How often a thread looks for the others before it lets somebody else run.
const SPINS: usize = 2000;

/// A place where threads put their columns of a matrix and take all of it, turn by turn.
///
/// Each has two blocks that take turns: a thread can be at most one turn ahead, as for the turn after that it
/// waits for all others to have come, and so to have read the one before. So no lock is ever waited for.
pub(super) struct Exchange<T> {
    members: SmallVec<[(Range<usize>, [RwLock<Vec<T>>; 2]); 2]>,
    /// How often any thread has put its columns.
    arrived: AtomicUsize,
    /// Whether some thread will never come again.
    left: AtomicBool,
}

impl<T: Copy> Exchange<T> {
    /// An exchange of members with some columns each.
    pub(super) fn new(columns: &[Range<usize>]) -> Self {
        let member = |columns: &Range<usize>| (columns.clone(), Default::default());
        Self {
            members: columns.iter().map(member).collect(),
            arrived: AtomicUsize::new(0),
            left: AtomicBool::new(false),
        }
    }

    /// Puts `mine`, the columns of a member for all rows, and waits for `all`: `[rows, n]`. Matrices side by side are as many rows,
    /// part after part: `[rows, parts, n]`.
    ///
    /// # Errors
    /// Another thread has failed.
    pub(super) fn share(
        &self,
        turn: usize,
        member: usize,
        mine: &[T],
        (all, n): (&mut [T], usize),
    ) -> Result<()> {
        {
            let block = &self.members[member].1[turn % 2];
            let mut block = block.write().unwrap_or_else(PoisonError::into_inner);
            block.clear();
            block.extend_from_slice(mine);
        }
        self.arrived.fetch_add(1, Ordering::Release);
        let expected = (turn + 1) * self.members.len();
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
            let block = blocks[turn % 2]
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let rows = block.chunks_exact(columns.len());
            for (to, from) in all.chunks_exact_mut(n).zip(rows) {
                to[columns.clone()].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Tells the others, should this thread end before its work is done.
    pub(super) fn member(&self) -> Member<'_> {
        Member {
            left: &self.left,
            done: false,
        }
    }
}

/// A thread's part in an exchange.
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
    fn everybody_gets_everything_turn_by_turn() {
        let ranges = [0..1, 1..4, 4..5];
        let exchange = Exchange::new(&ranges);
        thread::scope(|scope| {
            for (i, units) in ranges.into_iter().enumerate() {
                let exchange = &exchange;
                scope.spawn(move || {
                    let member = exchange.member();
                    for turn in 0..500 {
                        let number = |r: usize, u: usize| (turn * 100 + r * 10 + u) as f32 / 7.0;
                        let mine: Vec<f32> = (0..2)
                            .flat_map(|r| units.clone().map(move |u| number(r, u)))
                            .collect();
                        let mut all = [0.0f32; 10];
                        exchange.share(turn, i, &mine, (&mut all, 5)).unwrap();
                        let expected: Vec<f32> = (0..10).map(|i| number(i / 5, i % 5)).collect();
                        assert_eq!(all[..], expected);
                    }
                    member.done();
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_one_that_has_failed() {
        let exchange = Exchange::new(&[0..1, 1..2]);
        thread::scope(|scope| {
            scope.spawn(|| drop(exchange.member()));
            let told = exchange.share(0, 0, &[1.0f32], (&mut [0.0; 2], 2));
            assert!(told.is_err());
        });
    }
}
