//! Steps that are recorded once and replayed: what a sequence queues for some steps becomes one launch of a CUDA graph.
//!
//! A recording holds addresses, so what it uses lies in a [`Workspace`] that stays where it is; everything else its
//! kernels find through a description in it. A kind of sequence ([`Key`]) is recorded when it comes for the second time: by then
//! all its kernels are loaded, and many kinds come only once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use backend_api::{Activation, DType, Error, Recurrence, Result};
use cudarc::driver::{CudaGraph, CudaStream, result, sys};

use crate::blas::{Blas, WORKSPACE};
use crate::device::Cuda;
use crate::driver;
use crate::launch::{Args, Grid, Kernel};
use crate::matmul::Product;
use crate::pool::Block;

/// Steps of a recording.
pub(crate) const CHUNK: usize = 32;
/// Kinds of sequences whose recordings are kept.
const KINDS: usize = 16;

/// Where a step's kernels and products go: to the compute stream, or into a recording.
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

/// A stream to record on, with a cuBLAS handle of its own, which goes first.
struct Recorder {
    blas: Blas,
    stream: Arc<CudaStream>,
}

/// Everything that decides what a sequence queues for a step, but for what its description says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    gradient: bool,
    cell: (u8, Activation, u64),
    dtype: DType,
    batch: usize,
    units: usize,
}

impl Key {
    /// `None` for a recurrence that this backend does not know.
    pub(crate) fn new(
        gradient: bool,
        recurrence: Recurrence,
        dtype: DType,
        batch: usize,
        units: usize,
    ) -> Option<Self> {
        let cell = match recurrence {
            Recurrence::Basic { activation } => (0, activation, 0),
            Recurrence::Lstm(gates) => (1, gates.activation, gates.forget_bias.to_bits()),
            Recurrence::Gru { activation } => (2, activation, 0),
            _ => return None,
        };
        Some(Self {
            gradient,
            cell,
            dtype,
            batch,
            units,
        })
    }
}

/// Memory that stays where it is while a sequence is queued, and from one sequence of its kind to the next.
pub(crate) struct Workspace {
    graph: Option<Graph>,
    /// Whether the kind came before.
    known: bool,
    used: u64,
    blocks: Vec<Block>,
}

/// A recording.
struct Graph(CudaGraph);

// SAFETY: the graph is used under the lock of `Recordings` alone.
unsafe impl Send for Graph {}

impl Workspace {
    /// The address of a block.
    pub(crate) fn address(&self, block: usize) -> sys::CUdeviceptr {
        self.blocks[block].address()
    }
}

/// What a device has recorded. Fields are dropped in order.
#[derive(Default)]
pub(crate) struct Recordings(Mutex<State>);

#[derive(Default)]
struct State {
    kinds: HashMap<Key, Workspace>,
    recorder: Option<Recorder>,
    clock: u64,
}

/// A sequence that is queued step by step.
pub(crate) trait Steps {
    fn key(&self) -> Key;

    /// The number of steps.
    fn steps(&self) -> usize;

    /// Bytes of each block of the workspace.
    fn blocks(&self) -> Vec<usize>;

    /// Fills the workspace.
    fn prepare(&self, workspace: &Workspace) -> Result<()>;

    /// Queues the step so many places behind where the workspace stands.
    fn step(&self, queue: Queue<'_>, workspace: &Workspace, offset: usize) -> Result<()>;

    /// Moves the workspace on by a chunk.
    fn advance(&self, queue: Queue<'_>, workspace: &Workspace) -> Result<()>;

    /// Takes results out of the workspace.
    fn finish(&self, workspace: &Workspace) -> Result<()>;
}

impl Cuda {
    /// Queues a sequence, chunks of it by replaying a recording where there is one.
    pub(crate) fn run_steps(&self, sequence: &impl Steps) -> Result<()> {
        if sequence.steps() < CHUNK {
            let workspace = self.workspace(sequence)?;
            return self.run_steps_in(&workspace, sequence);
        }
        // A recording that goes to make room needs the device.
        self.bind()?;
        // Locked until all is queued: two sequences of one kind use one workspace, one after the other.
        let mut state = self
            .recordings()
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
        if workspace.known && workspace.graph.is_none() {
            let recorder = match recorder {
                Some(recorder) => recorder,
                None => recorder.insert(self.recorder()?),
            };
            workspace.graph = Some(self.record(recorder, workspace, sequence)?);
        }
        self.run_steps_in(workspace, sequence)?;
        if !workspace.known {
            // The one kernel that only recordings use: loaded before one is made. What it changes is not used again.
            let queue = Queue {
                cuda: self,
                recorder: None,
            };
            sequence.advance(queue, workspace)?;
        }
        workspace.known = true;
        Ok(())
    }

    fn workspace(&self, sequence: &impl Steps) -> Result<Workspace> {
        let blocks = sequence.blocks();
        let blocks = blocks.into_iter().map(|bytes| self.pool().take(bytes));
        Ok(Workspace {
            graph: None,
            known: false,
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
                // SAFETY: the graph exists, and its memory is the workspace's and what the description names.
                unsafe { result::graph::launch(graph.cu_graph_exec(), self.stream()) }
                    .map_err(|e| driver::failure(self.index(), "replaying", e))?;
                self.count_launch();
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
        let stream = self.new_stream()?;
        let workspace = self.pool().take(WORKSPACE)?;
        let blas = Blas::new(self.index(), stream.cu_stream(), workspace)?;
        Ok(Recorder { blas, stream })
    }

    fn record(
        &self,
        recorder: &Recorder,
        workspace: &Workspace,
        sequence: &impl Steps,
    ) -> Result<Graph> {
        let failed = |e| driver::failure(self.index(), "recording", e);
        let queue = Queue {
            cuda: self,
            recorder: Some(recorder),
        };
        let relaxed = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        recorder.stream.begin_capture(relaxed).map_err(failed)?;
        let queued = (0..CHUNK)
            .try_for_each(|offset| sequence.step(queue, workspace, offset))
            .and_then(|()| sequence.advance(queue, workspace));
        // Ended whatever happened, so that the stream can record again.
        let flags = sys::CUgraphInstantiate_flags(0);
        let graph = recorder.stream.end_capture(flags).map_err(failed);
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
