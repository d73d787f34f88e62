//! Collective operations on a thread of their own, so that the caller computes meanwhile.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;

use backend_api::{Error, Result};

use super::Collective;

type Job = Box<dyn FnOnce(&dyn Collective) + Send>;

/// Runs operations one after the other, in the order in which they were started: the order in which
/// each rank's program starts them.
pub(super) struct Background {
    jobs: mpsc::Sender<Job>,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Background")
    }
}

/// The result of an operation that may not have ended.
#[derive(Debug)]
pub(super) struct Pending<T>(mpsc::Receiver<Result<T>>);

impl Background {
    /// The thread ends when this value is dropped and its last operation has returned.
    pub(super) fn new(collective: Arc<dyn Collective>) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("collective".to_owned());
        let work = move || queue.iter().for_each(|job| job(&*collective));
        thread.spawn(work).map_err(|e| gone(e.to_string()))?;
        Ok(Self { jobs })
    }

    /// Starts an operation.
    pub(super) fn start<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&dyn Collective) -> Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (result, pending) = mpsc::channel();
        let job = move |collective: &dyn Collective| {
            // The receiver is gone if the caller failed meanwhile.
            let _ = result.send(operation(collective));
        };
        // If the thread is gone, so is `result`, and `wait` says so.
        let _ = self.jobs.send(Box::new(job));
        Pending(pending)
    }
}

impl<T> Pending<T> {
    /// The result, as soon as the operation has ended.
    pub(super) fn wait(self) -> Result<T> {
        let ended = self.0.recv();
        ended.unwrap_or_else(|_| Err(gone("its thread has ended".to_owned())))
    }
}

fn gone(problem: String) -> Error {
    Error::Failed {
        device: "the collective".to_owned(),
        action: "an operation",
        problem,
    }
}
