//! CUDA graphs of recorded steps, with the memory that they use.
//!
//! A recording contains addresses, so everything that it uses is in a [`Workspace`] at fixed
//! addresses. Its kernels find all other memory through a description in the workspace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaGraph, CudaStream, sys};

use crate::blas::Blas;
use crate::pool::Block;

/// A capture stream with its own cuBLAS handle, which is dropped first.
pub(crate) struct Recorder {
    pub(crate) blas: Blas,
    pub(crate) stream: Arc<CudaStream>,
}

/// Everything that determines the launches of a step, except the contents of the description: the
/// number of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) u64);

/// Memory with fixed addresses, reused by all sequences of one kind.
pub(crate) struct Workspace {
    pub(crate) graph: Option<Graph>,
    /// Whether the kind has been used before.
    pub(crate) known: bool,
    /// Why its recordings failed, each time.
    pub(crate) failures: Vec<String>,
    pub(crate) used: u64,
    pub(crate) blocks: Vec<Block>,
}

/// A recording.
pub(crate) struct Graph(pub(crate) CudaGraph);

// SAFETY: the graph is used only under the lock of `GraphCache`.
unsafe impl Send for Graph {}

impl Workspace {
    /// The address of a block.
    pub(crate) fn address(&self, block: usize) -> sys::CUdeviceptr {
        self.blocks[block].address()
    }
}

/// The recordings of a device. Fields are dropped in order.
#[derive(Default)]
pub(crate) struct GraphCache(pub(crate) Mutex<State>);

impl GraphCache {
    /// Why a kind of sequence has no recording, if one was tried.
    pub(crate) fn failure(&self, kind: Key) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace = state.kinds.get(&kind)?;
        let failure = workspace.failures.last()?;
        workspace.graph.is_none().then(|| failure.clone())
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) kinds: HashMap<Key, Workspace>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) clock: u64,
}
