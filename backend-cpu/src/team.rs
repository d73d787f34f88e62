//! Threads that begin at once: for work so short that waking a thread would take as long as the work.
//!
//! A pool's threads go to sleep when there is nothing to do, and to wake one takes tens of microseconds. These look for
//! the next task for a while first, so that in a stream of short operations they are always there.
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

/// What member `i` has to do.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

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
    /// Members that have not finished the current task.
    busy: AtomicUsize,
    panicked: AtomicBool,
}

struct State {
    number: usize,
    task: Option<Task<'static>>,
    end: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task after number `last`, once there is one; `None` at the end.
    fn next(&self, last: usize) -> Option<(usize, Task<'static>)> {
        let since = Instant::now();
        let mut looks = 0;
        while self.number.load(Ordering::Acquire) == last && since.elapsed() < PATIENCE {
            looks += 1;
            if looks % SPINS == 0 {
                thread::yield_now();
            }
            hint::spin_loop();
        }
        let mut state = self.lock();
        loop {
            if state.end {
                return None;
            }
            if state.number != last
                && let Some(task) = state.task
            {
                return Some((state.number, task));
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, member: usize) {
        let mut last = 0;
        while let Some((number, task)) = self.next(last) {
            last = number;
            if panic::catch_unwind(AssertUnwindSafe(|| task(member))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Waits until all members have finished, even should the caller panic: the task borrows what lies on its stack.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut looks = 0;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks % SPINS == 0 {
                thread::yield_now();
            }
            hint::spin_loop();
        }
        self.0.lock().task = None;
    }
}

impl Team {
    /// So many members, the caller included; `None` if the system cannot start the threads.
    pub(crate) fn new(members: usize) -> Option<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                number: 0,
                task: None,
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
            team.threads
                .push(thread.spawn(move || shared.work(member)).ok()?);
        }
        Some(team)
    }

    /// Runs `task` once for each of `0..members`, all at the same time, the caller being member 0.
    ///
    /// # Panics
    /// If the task does.
    pub(crate) fn run(&mut self, task: Task<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed. The reference is read by members while `busy` is not 0, and `Finish`
        // does not let this function return or unwind before it is; after that the reference is gone from the state. That no
        // other task is started meanwhile is what `&mut self` is for.
        let task: Task<'static> = unsafe { mem::transmute::<Task<'_>, Task<'static>>(task) };
        shared.busy.store(self.threads.len(), Ordering::Relaxed);
        {
            let mut state = shared.lock();
            state.number = state.number.wrapping_add(1);
            state.task = Some(task);
            shared.number.store(state.number, Ordering::Release);
        }
        shared.wake.notify_all();
        let finish = Finish(shared);
        task(0);
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
    fn each_member_works_once_a_task_and_borrows_from_the_caller() {
        let mut team = Team::new(3).unwrap();
        for turn in 0..2000 {
            if turn % 500 == 0 {
                // Long enough that everybody sleeps.
                thread::sleep(3 * PATIENCE);
            }
            let counts: [AtomicUsize; 3] = Default::default();
            team.run(&|member| {
                counts[member].fetch_add(turn + 1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == turn + 1));
        }
    }

    #[test]
    fn members_run_at_the_same_time() {
        let mut team = Team::new(4).unwrap();
        let here = AtomicUsize::new(0);
        team.run(&|_| {
            here.fetch_add(1, Ordering::SeqCst);
            while here.load(Ordering::SeqCst) < 4 {
                thread::yield_now();
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        let mut team = Team::new(2).unwrap();
        for member in [0, 1] {
            let told = panic::catch_unwind(AssertUnwindSafe(|| {
                team.run(&|i| assert_ne!(i, member));
            }));
            assert!(told.is_err());
        }
        let count = AtomicUsize::new(0);
        team.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }

    #[test]
    fn nobody_stays_behind() {
        for members in [1, 2, 5] {
            drop(Team::new(members).unwrap());
        }
    }
}
