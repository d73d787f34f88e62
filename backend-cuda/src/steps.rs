//! Queueing a sequence step by step: chunks of steps are recorded as CUDA graphs and replayed, each
//! with one launch.
//!
//! A kind of sequence ([`Key`]) is recorded at its second use: by then all its kernels are loaded,
//! and many kinds occur only once.

use std::collections::hash_map::Entry;
use std::sync::PoisonError;

use backend_api::{Error, Result};
use cudarc::driver::{result, sys};

use crate::arguments::{Args, Grid, Kernel};
use crate::blas::{Blas, CAPTURE, WORKSPACE};
use crate::device::Cuda;
use crate::driver;
use crate::graphs::{Graph, Key, Recorder, State, Workspace};
use crate::matmul::Product;
use crate::ranges::range;

/// Steps per recording.
pub(crate) const CHUNK: usize = 32;
/// Failed recordings of a kind after which it is not tried again.
const ATTEMPTS: usize = 3;
/// Maximum kinds of sequences whose recordings are kept.
const KINDS: usize = 16;

/// The target of a step's kernels and matmuls: the compute stream or a recording.
#[derive(Clone, Copy)]
pub(crate) struct Queue<'a> {
    cuda: &'a Cuda,
    recorder: Option<&'a Recorder>,
}

impl Queue<'_> {
    pub(crate) fn launch(&self, kernel: Kernel, grid: Grid, args: Args) -> Result<()> {
        match self.recorder {
            Some(recorder) => self
                .cuda
                .launch_on(recorder.stream.cu_stream(), kernel, grid, args),
            None => self.cuda.launch(kernel, grid, args),
        }
    }

    pub(crate) fn product(&self, product: &Product) -> Result<()> {
        match self.recorder {
            Some(recorder) => self.cuda.product_with(&recorder.blas, product),
            None => self.cuda.product(product),
        }
    }
}

/// A sequence that is queued step by step.
pub(crate) trait Steps {
    fn key(&self) -> Key;

    /// The number of steps.
    fn steps(&self) -> usize;

    /// Bytes of each workspace block.
    fn blocks(&self) -> Vec<usize>;

    /// Fills the workspace.
    fn prepare(&self, workspace: &Workspace) -> Result<()>;

    /// Queues the step `offset` steps after the workspace's current position.
    fn step(&self, queue: Queue<'_>, workspace: &Workspace, offset: usize) -> Result<()>;

    /// Advances the workspace's position by [`CHUNK`] steps.
    fn advance(&self, queue: Queue<'_>, workspace: &Workspace) -> Result<()>;

    /// Copies the results out of the workspace.
    fn finish(&self, workspace: &Workspace) -> Result<()>;
}

impl Cuda {
    /// Queues a sequence. Chunks of it are replayed if a recording exists.
    pub(crate) fn run_steps(&self, sequence: &impl Steps) -> Result<()> {
        if sequence.steps() < CHUNK {
            let workspace = self.workspace(sequence)?;
            return self.run_steps_in(&workspace, sequence);
        }
        // Dropping an evicted recording needs the context.
        self.bind()?;
        // The lock is held until everything is queued: sequences of one kind use the same
        // workspace, one after the other.
        let mut state = self
            .graphs()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let State {
            kinds,
            recorder,
            clock,
        } = &mut *state;
        *clock += 1;
        let key = sequence.key();
        if !kinds.contains_key(&key) && kinds.len() >= KINDS {
            let oldest = kinds
                .iter()
                .min_by_key(|(_, w)| w.used)
                .map(|(key, _)| *key);
            oldest.and_then(|key| kinds.remove(&key));
        }
        let workspace = match kinds.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.workspace(sequence)?),
        };
        workspace.used = *clock;
        if workspace.known && workspace.graph.is_none() && workspace.failures.len() < ATTEMPTS {
            // A recording saves time and nothing else, so a failure is not the caller's.
            match self.record_with(recorder, workspace, sequence) {
                Ok(graph) => workspace.graph = Some(graph),
                Err(error) => {
                    log::warn!("{error}; the sequence runs without a recording");
                    workspace.failures.push(error.to_string());
                }
            }
        }
        self.run_steps_in(workspace, sequence)?;
        if !workspace.known {
            // `advance` is only used in recordings, so its kernel is loaded here, before the first
            // capture. The position that it changes is not used again.
            let queue = Queue {
                cuda: self,
                recorder: None,
            };
            sequence.advance(queue, workspace)?;
        }
        // A synchronous device waits for each kernel, so it records none.
        workspace.known = !self.is_synchronous();
        Ok(())
    }

    fn workspace(&self, sequence: &impl Steps) -> Result<Workspace> {
        let blocks = sequence.blocks();
        let blocks = blocks.into_iter().map(|bytes| self.pool().take(bytes));
        Ok(Workspace {
            graph: None,
            known: false,
            failures: Vec::new(),
            used: 0,
            blocks: blocks.collect::<Result<_>>()?,
        })
    }

    fn run_steps_in(&self, workspace: &Workspace, sequence: &impl Steps) -> Result<()> {
        sequence.prepare(workspace)?;
        let mut rest = sequence.steps();
        if let Some(Graph(graph)) = &workspace.graph {
            while rest >= CHUNK {
                self.bind()?;
                let _range = range("recorded steps");
                // SAFETY: the graph exists. It uses the memory of the workspace and the memory that
                // the description names; the pool orders any reuse of both after this launch.
                let launch = || unsafe {
                    result::graph::launch(graph.cu_graph_exec(), self.stream())
                        .map_err(self.failed("replaying"))
                };
                self.pool().with_room(0, launch)?;
                self.launched("replaying")?;
                rest -= CHUNK;
            }
        }
        let queue = Queue {
            cuda: self,
            recorder: None,
        };
        for offset in 0..rest {
            sequence.step(queue, workspace, offset)?;
        }
        sequence.finish(workspace)
    }

    fn recorder(&self) -> Result<Recorder> {
        let stream = self.primary().new_stream()?;
        let workspace = self.pool().take(WORKSPACE)?;
        let blas = Blas::new(self.primary(), stream.cu_stream(), workspace)?;
        Ok(Recorder { blas, stream })
    }

    /// Records a sequence with the device's recorder, which is created at first use.
    fn record_with(
        &self,
        recorder: &mut Option<Recorder>,
        workspace: &Workspace,
        sequence: &impl Steps,
    ) -> Result<Graph> {
        self.pool().with_room(0, || {
            let recorder = match &mut *recorder {
                Some(recorder) => recorder,
                none => none.insert(self.recorder()?),
            };
            self.record(recorder, workspace, sequence)
        })
    }

    fn record(
        &self,
        recorder: &Recorder,
        workspace: &Workspace,
        sequence: &impl Steps,
    ) -> Result<Graph> {
        let failed = self.failed("recording");
        let queue = Queue {
            cuda: self,
            recorder: Some(recorder),
        };
        let relaxed = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let _alone = CAPTURE.write().unwrap_or_else(PoisonError::into_inner);
        recorder.stream.begin_capture(relaxed).map_err(&failed)?;
        let queued = (0..CHUNK)
            .try_for_each(|offset| sequence.step(queue, workspace, offset))
            .and_then(|()| sequence.advance(queue, workspace));
        // The capture ends even after an error, so that the stream can record again.
        let flags = sys::CUgraphInstantiate_flags(0);
        let graph = recorder.stream.end_capture(flags).map_err(&failed);
        queued?;
        match graph? {
            Some(graph) => {
                log::debug!(
                    "{}: {:?} is recorded",
                    driver::name(self.index()),
                    sequence.key()
                );
                Ok(Graph(graph))
            }
            None => Err(Error::Failed {
                device: driver::name(self.index()),
                action: "recording",
                problem: "the recording is empty".into(),
            }),
        }
    }
}
