//! Threads that begin at once: for work so short that waking a thread would take as long as the work.
//!
//! A pool's threads go to sleep when there is nothing to do, and to wake one takes tens of microseconds. These look for
//! the next task for a while first, so that in a stream of short operations they are always there. Nobody waits for one that has not
//! come when the work is done, as it may be that the system has its processor do something else.
//!
//! This module has unsafe code: a task borrows from the caller's stack, which waits for its end.
#![allow(unsafe_code)]

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{hint, mem, thread};

/// How long a thread without work looks for some before it goes to sleep.
const PATIENCE: Duration = Duration::from_micros(300);
/// How often it looks before it lets other threads run.
const SPINS: usize = 200;

/// What whoever comes has to do.
type Task<'a> = &'a (dyn Fn() + Sync);

/// Some threads besides the caller's.
pub(crate) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// The number of the current task; what is in `state` as well, to look at without the lock.
    number: AtomicUsize,
    /// Members that have begun with the current task and have not finished it.
    busy: AtomicUsize,
    panicked: AtomicBool,
}

struct State {
    number: usize,
    /// While there may be something to do.
    task: Option<Task<'static>>,
    /// Members that have to be woken.
    asleep: usize,
    end: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task after number `last` that a member is in time for, which makes it busy; `None` at the end.
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

/// Lets nobody begin any more and waits until those that have begun are done, even should the caller panic: the task borrows what lies on
/// its stack.
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

impl Team {
    /// So many members, the caller included; `None` if the system cannot start the threads.
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
        let mut team = Self {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for member in 1..members {
            let shared = shared.clone();
            let name = format!("cpu-team-{member}");
            let thread = thread::Builder::new().name(name);
            // Should one not start, those that have end with `team`.
            team.threads.push(thread.spawn(move || shared.work()).ok()?);
        }
        Some(team)
    }

    /// Runs `task` on the caller's thread, and on those of other members that come meanwhile, all at the same time.
    ///
    /// # Panics
    /// If the task does.
    pub(crate) fn run(&mut self, task: Task<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed. A member takes the reference under the lock, together with becoming busy, and `Finish`
        // takes it away under the lock and does not let this function return or unwind while anybody is busy. That no other task is
        // started meanwhile is what `&mut self` is for.
        let shared_task: Task<'static> = unsafe { mem::transmute::<Task<'_>, Task<'static>>(task) };
        let asleep = {
            let mut state = shared.lock();
            state.number = state.number.wrapping_add(1);
            state.task = Some(shared_task);
            shared.number.store(state.number, Ordering::Release);
            state.asleep
        };
        let finish = Finish(shared);
        // Only if somebody is: it is a call of the system.
        if asleep > 0 {
            shared.wake.notify_all();
        }
        task();
        drop(finish);
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a thread of the team panicked"
        );
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        // Those that still look see it at the latest when they have lost their patience.
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
    fn the_caller_and_whoever_comes_do_the_work_and_borrow_from_the_caller() {
        let mut team = Team::new(3).unwrap();
        for turn in 0..2000 {
            if turn % 500 == 0 {
                // Long enough that everybody sleeps.
                thread::sleep(3 * PATIENCE);
            }
            let counts: [AtomicUsize; 7] = Default::default();
            let next = AtomicUsize::new(0);
            team.run(&|| {
                while let Some(count) = counts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    count.fetch_add(turn + 1, Ordering::Relaxed);
                }
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == turn + 1));
        }
    }

    #[test]
    fn members_run_at_the_same_time() {
        let mut team = Team::new(4).unwrap();
        for _ in 0..50 {
            let here = AtomicUsize::new(0);
            team.run(&|| {
                here.fetch_add(1, Ordering::SeqCst);
                while here.load(Ordering::SeqCst) < 4 {
                    thread::yield_now();
                }
            });
            assert_eq!(here.into_inner(), 4, "each of them once");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(2).unwrap();
        for who in [0, 1] {
            let next = AtomicUsize::new(0);
            let told = panic::catch_unwind(AssertUnwindSafe(|| {
                team.run(&|| {
                    let i = next.fetch_add(1, Ordering::SeqCst);
                    while next.load(Ordering::SeqCst) < 2 {
                        thread::yield_now();
                    }
                    assert_ne!(i, who);
                });
            }));
            assert!(told.is_err());
        }
        let count = AtomicUsize::new(0);
        team.run(&|| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!((1..=2).contains(&count.into_inner()));
    }

    #[test]
    fn nobody_stays_behind() {
        for members in [1, 2, 5] {
            drop(Team::new(members).unwrap());
        }
    }
}
