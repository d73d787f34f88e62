//! Work that the threads of a device share.

use std::ops::Range;
use std::sync::Mutex;

use backend_api::Result;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use smallvec::SmallVec;

use crate::device::Cpu;

/// Work below this, in element operations, is not worth another thread.
const MIN_WORK: usize = 1 << 14;

/// A piece of work for whoever takes it first.
type Piece<P> = Mutex<Option<P>>;

fn take<P>(piece: &Piece<P>) -> Option<P> {
    piece.lock().ok()?.take()
}

impl Cpu {
    /// Runs `f` on ranges of rows and the parts of `outs` that belong to them, in parallel if there is
    /// enough work. Each of `outs` has a number of elements to a row. `f` must treat each row
    /// alike whatever the range, as the ranges depend on the number of threads.
    pub(crate) fn split<T: Send, const N: usize>(
        &self,
        rows: usize,
        outs: [(&mut [T], usize); N],
        work_per_row: usize,
        f: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
    ) {
        let work = rows.saturating_mul(work_per_row.max(1));
        let pieces = self.threads().min(work / MIN_WORK).min(rows);
        if pieces < 2 {
            return f(0..rows, outs.map(|(out, _)| out));
        }
        let mut rest = outs;
        let mut parts: SmallVec<[_; 8]> = SmallVec::new();
        for i in 0..pieces {
            let range = rows * i / pieces..rows * (i + 1) / pieces;
            let part = rest.each_mut().map(|(out, width)| {
                let (part, others) = std::mem::take(out).split_at_mut(range.len() * *width);
                *out = others;
                part
            });
            parts.push(Mutex::new(Some((range, part))));
        }
        self.each_piece(&parts, |(range, part)| f(range, part));
    }

    /// Runs parts of an operation, each on a thread.
    ///
    /// # Errors
    /// That of a part.
    pub(crate) fn run_parts<P: Send>(
        &self,
        parts: impl IntoIterator<Item = P>,
        run: impl Fn(P) -> Result<()> + Sync,
    ) -> Result<()> {
        let parts: SmallVec<[_; 8]> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
        let failure = Mutex::new(Ok(()));
        self.each_piece(&parts, |part| note(&failure, run(part)));
        failure.into_inner().unwrap_or(Ok(()))
    }

    /// Runs parts that wait for one another, each on a thread of its own: no more than there are threads. `false` if that cannot be now.
    ///
    /// # Errors
    /// That of a part.
    pub(crate) fn run_together<P: Send>(
        &self,
        parts: impl IntoIterator<Item = P>,
        run: impl Fn(P) -> Result<()> + Sync,
    ) -> Result<bool> {
        let parts: SmallVec<[_; 8]> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
        let failure = Mutex::new(Ok(()));
        let ran = self.run_team(&|| {
            // The caller takes them all if they did not have to wait.
            for part in parts.iter().filter_map(take) {
                note(&failure, run(part));
            }
        });
        failure.into_inner().unwrap_or(Ok(())).map(|()| ran)
    }

    /// Runs each piece of work, several at a time. The team begins at once; should another operation have it, other threads are woken.
    fn each_piece<P: Send>(&self, pieces: &[Piece<P>], run: impl Fn(P) + Sync) {
        let work = || pieces.iter().filter_map(take).for_each(&run);
        if pieces.len() < 2 {
            work();
        } else if !self.run_team(&work) {
            match self.workers() {
                Some(workers) => {
                    workers.install(|| pieces.par_iter().filter_map(take).for_each(&run))
                }
                None => work(),
            }
        }
    }
}

/// Keeps the first error.
fn note(failure: &Mutex<Result<()>>, result: Result<()>) {
    if let (Err(error), Ok(mut failure)) = (result, failure.lock())
        && failure.is_ok()
    {
        *failure = Err(error);
    }
}
