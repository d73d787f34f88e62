//! A pool of worker threads that spin before they sleep.
//!
//! Waking a sleeping thread takes tens of microseconds, as long as one short operation. Workers of
//! this pool spin for 300 µs after each task, so that back-to-back short operations start at once.
//! The caller never waits for a worker that has not woken up by the time the work is done: the
//! operating system may have given that worker's core to another program.
//!
//! This module contains unsafe code: a task borrows from the caller's stack, and the caller waits
//! until every worker has finished the task.
#![allow(unsafe_code)]

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{hint, mem, thread};

/// How long an idle worker spins before it sleeps.
const PATIENCE: Duration = Duration::from_micros(300);
/// Polls of a spinning thread between two calls of [`thread::yield_now`].
const SPINS: usize = 200;

/// The closure that the caller and every participating worker run.
type Task<'a> = &'a (dyn Fn() + Sync);

/// A pool of workers besides the calling thread.
pub(crate) struct SpinPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// The number of the current task: a copy of `state.number` that is read without the lock.
    number: AtomicUsize,
    /// Workers that have started the current task and have not finished it.
    busy: AtomicUsize,
    panicked: AtomicBool,
}

struct State {
    number: usize,
    /// The current task; `None` once no worker may start it any more.
    task: Option<Task<'static>>,
    /// Workers that sleep on `wake`.
    asleep: usize,
    end: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task with a number other than `last`. Marks the worker as busy and returns the
    /// task; returns `None` when the pool shuts down. A task that has already been withdrawn is
    /// skipped.
    fn next(&self, last: &mut usize) -> Option<Task<'static>> {
        let mut since = Instant::now();
        let mut looks = 0;
        loop {
            while self.number.load(Ordering::Acquire) == *last {
                looks += 1;
                if looks % SPINS == 0 {
                    if since.elapsed() >= PATIENCE {
                        break;
                    }
                    thread::yield_now();
                }
                hint::spin_loop();
            }
            let mut state = self.lock();
            while state.number == *last && !state.end {
                state.asleep += 1;
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
            }
            if state.end {
                return None;
            }
            *last = state.number;
            if let Some(task) = state.task {
                self.busy.fetch_add(1, Ordering::Relaxed);
                return Some(task);
            }
            since = Instant::now();
        }
    }

    fn work(&self) {
        let mut last = 0;
        while let Some(task) = self.next(&mut last) {
            if panic::catch_unwind(AssertUnwindSafe(task)).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

/// On drop, withdraws the task, so that no further worker starts it, and waits until all busy
/// workers have finished. The task borrows from the caller's stack, so this must also happen if the
/// caller panics.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.lock().task = None;
        let mut looks = 0;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks % SPINS == 0 {
                thread::yield_now();
            }
            hint::spin_loop();
        }
    }
}

impl SpinPool {
    /// Starts `members - 1` worker threads; the caller is the remaining member. Returns `None` if
    /// the operating system cannot start the threads.
    pub(crate) fn new(members: usize) -> Option<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                number: 0,
                task: None,
                asleep: 0,
                end: false,
            }),
            wake: Condvar::new(),
            number: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let mut pool = Self {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for member in 1..members {
            let shared = shared.clone();
            let name = format!("cpu-spin-{member}");
            let thread = thread::Builder::new().name(name);
            // If a thread fails to start, dropping `pool` ends those that have started.
            pool.threads.push(thread.spawn(move || shared.work()).ok()?);
        }
        Some(pool)
    }

    /// Runs `task` on the calling thread and, concurrently, on every worker that wakes up before
    /// the calling thread has finished.
    ///
    /// # Panics
    /// If the task panics on any thread.
    pub(crate) fn run(&mut self, task: Task<'_>) {
        let shared = &*self.shared;
        // SAFETY: the transmute changes only the lifetime. A worker takes the reference under the
        // lock and marks itself busy under the same lock. `Finish` removes the reference under the
        // lock, and does not let this function return or unwind while a worker is busy, so no
        // worker uses the reference after the borrow ends. `&mut self` ensures that no other task
        // is started meanwhile.
        let shared_task: Task<'static> = unsafe { mem::transmute::<Task<'_>, Task<'static>>(task) };
        let asleep = {
            let mut state = shared.lock();
            state.number = state.number.wrapping_add(1);
            state.task = Some(shared_task);
            // Set if the previous task panicked on a worker and on its caller.
            shared.panicked.store(false, Ordering::Relaxed);
            shared.number.store(state.number, Ordering::Release);
            state.asleep
        };
        let finish = Finish(shared);
        // Notifying is a system call, so it is skipped if no worker sleeps.
        if asleep > 0 {
            shared.wake.notify_all();
        }
        task();
        drop(finish);
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a worker panicked"
        );
    }
}

impl Drop for SpinPool {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        // A spinning worker does not see `end` until it stops spinning, at most `PATIENCE` later.
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_and_awake_workers_share_a_task_that_borrows_from_the_caller() {
        let mut pool = SpinPool::new(3).unwrap();
        for round in 0..2000 {
            if round % 500 == 0 {
                // Long enough for all workers to fall asleep.
                thread::sleep(3 * PATIENCE);
            }
            let counts: [AtomicUsize; 7] = Default::default();
            let next = AtomicUsize::new(0);
            pool.run(&|| {
                while let Some(count) = counts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    count.fetch_add(round + 1, Ordering::Relaxed);
                }
            });
            assert!(
                counts
                    .iter()
                    .all(|c| c.load(Ordering::Relaxed) == round + 1)
            );
        }
    }

    #[test]
    fn members_run_at_the_same_time() {
        let mut pool = SpinPool::new(4).unwrap();
        for _ in 0..50 {
            let here = AtomicUsize::new(0);
            pool.run(&|| {
                here.fetch_add(1, Ordering::SeqCst);
                while here.load(Ordering::SeqCst) < 4 {
                    thread::yield_now();
                }
            });
            assert_eq!(here.into_inner(), 4, "each worker runs once");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_remains_usable() {
        let mut pool = SpinPool::new(2).unwrap();
        for panicking in [0, 1] {
            let next = AtomicUsize::new(0);
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|| {
                    let i = next.fetch_add(1, Ordering::SeqCst);
                    while next.load(Ordering::SeqCst) < 2 {
                        thread::yield_now();
                    }
                    assert_ne!(i, panicking);
                });
            }));
            assert!(result.is_err());
        }
        let count = AtomicUsize::new(0);
        pool.run(&|| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!((1..=2).contains(&count.into_inner()));
    }

    #[test]
    fn dropping_the_pool_ends_its_threads() {
        for members in [1, 2, 5] {
            drop(SpinPool::new(members).unwrap());
        }
    }
}
