//! Ranks that are threads of one process.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use backend_api::{Error, Result};

use super::Collective;

/// A rank that is a thread of this process: for tests, and for machines with more cores than one
/// model can use.
///
/// ```
/// use recurrent::parallel::{Collective, Local};
///
/// # fn main() -> recurrent::Result<()> {
/// let seen = Local::run(2, |ranks| ranks.all_gather(&[ranks.rank() as u8; 3]))?;
/// assert_eq!(seen, [[[0; 3], [1; 3]], [[0; 3], [1; 3]]]);
/// # Ok(()) }
/// ```
///
/// A rank that ends before the others, by an error or a panic, makes their calls fail.
#[derive(Debug)]
pub struct Local {
    rank: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What rank `from` has sent to rank `to`, at `from * size + to`.
    sent: Vec<VecDeque<Vec<u8>>>,
    left: Vec<bool>,
}

impl Local {
    /// The ranks of a job, in their order; at least one.
    pub fn group(size: usize) -> Vec<Self> {
        let size = size.max(1);
        let shared = Arc::new(Shared {
            size,
            state: Mutex::new(State {
                sent: vec![VecDeque::new(); size * size],
                left: vec![false; size],
            }),
            changed: Condvar::new(),
        });
        let of = |rank| Self {
            rank,
            shared: shared.clone(),
        };
        (0..size).map(of).collect()
    }

    /// Runs a function on each rank of a job, in a thread of its own, and returns the results in
    /// the order of ranks.
    ///
    /// # Errors
    /// That of the first rank whose function fails by itself, and not because another rank left.
    /// A panic continues on this thread.
    pub fn run<T: Send>(size: usize, job: impl Fn(Self) -> Result<T> + Sync) -> Result<Vec<T>> {
        let job = &job;
        let ended: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = Self::group(size)
                .into_iter()
                .map(|rank| scope.spawn(move || job(rank)))
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let mut results = Vec::new();
        let mut errors = Vec::new();
        for ended in ended {
            match ended {
                Ok(Ok(result)) => results.push(result),
                Ok(Err(error)) => errors.push(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        // The others fail because of the first.
        errors.sort_by_key(|error| matches!(error, Error::Failed { .. }));
        errors.into_iter().next().map_or(Ok(results), Err)
    }

    /// What `from` sent to this rank next.
    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let Shared {
            size,
            state,
            changed,
        } = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(bytes) = state.sent[from * size + self.rank].pop_front() {
                return Ok(bytes);
            }
            if state.left[from] {
                return Err(Error::Failed {
                    device: format!("rank {} of {size}", self.rank),
                    action: "an exchange",
                    problem: format!("rank {from} has ended"),
                });
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let state = self.shared.state.lock();
        change(&mut state.unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_all();
    }
}

impl Collective for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let size = self.shared.size;
        if parts.len() != size {
            let problem = format!("are {}, but there are {size} ranks", parts.len());
            return Err(Error::argument("exchange", "parts", problem));
        }
        self.change(|state| {
            for (to, part) in parts.into_iter().enumerate() {
                state.sent[self.rank * size + to].push_back(part);
            }
        });
        (0..size).map(|from| self.receive(from)).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.change(|state| state.left[self.rank] = true);
    }
}
