//! Splitting work over a device's threads.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend_api::Result;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use smallvec::SmallVec;

use crate::device::Cpu;

/// Element operations below which a further thread costs more than it saves.
const MIN_WORK: usize = 1 << 14;

/// A chunk of work; the first thread that locks it takes it.
type Piece<P> = Mutex<Option<P>>;

fn take<P>(piece: &Piece<P>) -> Option<P> {
    piece.lock().ok()?.take()
}

impl Cpu {
    /// Splits rows into ranges and runs `f` on each range and on its chunks of `outs`, in parallel
    /// if there is enough work. Each entry of `outs` is a buffer and its number of elements per
    /// row. The ranges depend on the number of threads, so `f` must compute each row independently
    /// of its range.
    ///
    /// Closures are trait objects here and in [`each_index`](Self::each_index): these functions are
    /// compiled once for a type of elements, and not for each of the hundreds of kernels that use
    /// them.
    pub(crate) fn split<T: Send, const N: usize>(
        &self,
        rows: usize,
        outs: [(&mut [T], usize); N],
        work_per_row: usize,
        f: &(dyn Fn(Range<usize>, [&mut [T]; N]) + Sync),
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

    /// Runs the parts of an operation in parallel.
    ///
    /// # Errors
    /// The first error that a part returns.
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

    /// Runs parts that synchronise with each other, one thread each. There must be at most as many
    /// parts as threads. Returns `false`, without running them, if the worker pool is busy or
    /// cannot be started.
    ///
    /// # Errors
    /// The first error that a part returns.
    pub(crate) fn run_together<P: Send>(
        &self,
        parts: impl IntoIterator<Item = P>,
        run: impl Fn(P) -> Result<()> + Sync,
    ) -> Result<bool> {
        let parts: SmallVec<[_; 8]> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
        let failure = Mutex::new(Ok(()));
        let ran = self.run_spinning(&|| {
            // A thread takes several parts only if no other thread has taken them. Parts that
            // synchronise keep their threads busy, so each thread then takes one.
            for part in parts.iter().filter_map(take) {
                note(&failure, run(part));
            }
        });
        failure.into_inner().unwrap_or(Ok(())).map(|()| ran)
    }

    /// Runs the pieces in parallel.
    fn each_piece<P: Send>(&self, pieces: &[Piece<P>], run: impl Fn(P) + Sync) {
        self.each_index(pieces.len(), &|index| {
            if let Some(piece) = take(&pieces[index]) {
                run(piece);
            }
        });
    }

    /// Calls `run` with each index below `count`, in parallel. The spinning worker pool starts at
    /// once; if another operation uses it, the calls are made on the rayon pool.
    fn each_index(&self, count: usize, run: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                run(index);
            }
        };
        if count < 2 {
            work();
        } else if !self.run_spinning(&work) {
            match self.workers() {
                Some(workers) => workers.install(|| (0..count).into_par_iter().for_each(run)),
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
