//! A barrier between threads that compute the same rows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{hint, thread};

use backend_api::{Error, Result};

/// Polls of a waiting thread between two calls of [`thread::yield_now`].
const SPINS: usize = 2000;

/// A barrier that threads pass together, any number of times.
#[derive(Debug)]
pub(super) struct Barrier {
    members: usize,
    /// The number of arrivals so far, of all threads.
    arrived: AtomicUsize,
    /// Whether a thread has failed and will not arrive again.
    left: AtomicBool,
}

impl Barrier {
    pub(super) fn new(members: usize) -> Self {
        Self {
            members,
            arrived: AtomicUsize::new(0),
            left: AtomicBool::new(false),
        }
    }

    /// A thread's membership.
    pub(super) fn member(&self) -> Member<'_> {
        Member {
            barrier: self,
            round: 0,
            done: false,
        }
    }
}

/// A thread's membership. If it is dropped before [`Member::done`], the waits of the others fail.
#[derive(Debug)]
pub(super) struct Member<'a> {
    barrier: &'a Barrier,
    round: usize,
    done: bool,
}

impl Member<'_> {
    /// Waits until all members have called this as often as this one.
    ///
    /// # Errors
    /// Another thread has failed.
    pub(super) fn wait(&mut self) -> Result<()> {
        let barrier = self.barrier;
        self.round += 1;
        barrier.arrived.fetch_add(1, Ordering::AcqRel);
        let expected = self.round * barrier.members;
        let mut spins = 0;
        while barrier.arrived.load(Ordering::Acquire) < expected {
            if barrier.left.load(Ordering::Relaxed) {
                return Err(Error::argument("scan", "a thread", "has failed"));
            }
            spins += 1;
            if spins % SPINS == 0 {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
        Ok(())
    }

    /// Ends the membership without a failure.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.barrier.left.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_passes_before_the_others_arrive() {
        let barrier = Barrier::new(3);
        let counts = [(); 3].map(|()| AtomicUsize::new(0));
        thread::scope(|scope| {
            for count in &counts {
                let (barrier, counts) = (&barrier, &counts);
                scope.spawn(move || {
                    let mut member = barrier.member();
                    for round in 1..=500 {
                        count.store(round, Ordering::Relaxed);
                        member.wait().unwrap();
                        let all = counts.iter().map(|c| c.load(Ordering::Relaxed));
                        assert!(all.min() >= Some(round));
                    }
                    member.done();
                });
            }
        });
    }

    #[test]
    fn a_failed_thread_ends_the_wait_of_the_others() {
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| drop(barrier.member()));
            assert!(barrier.member().wait().is_err());
        });
    }
}
