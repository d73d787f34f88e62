//! Backends that wrap a backend, for tests and measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::trace::{SharedProgram, StepGraph};
use crate::{Backend, Buffers, Dest, Dests, Op, Result, View, compose, forward_backend};

/// Runs the default implementation of each fused operation instead of the backend's kernel.
///
/// `Unfused<B>` around a device tests the device's kernels against the default implementations.
/// Around automatic differentiation it tests hand-written gradients against composed ones.
#[derive(Clone, Debug)]
pub struct Unfused<B>(pub B);

impl<B> Unfused<B> {
    /// The wrapped device.
    pub fn inner(&self) -> &B {
        &self.0
    }
}

impl<B: Backend> Backend for Unfused<B> {
    forward_backend!(@common B, 0);

    /// Every step: the default implementation runs any.
    fn compile_step(&self, _step: &StepGraph) -> Result<SharedProgram, String> {
        Ok(Arc::new(
            "the default implementation: operation by operation",
        ))
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, B::Buffer>],
        outs: Dests<B::Buffer>,
    ) -> Result<Buffers<B::Buffer>> {
        match op {
            Op::Fused(fused) => compose(self, fused, ins, outs),
            _ => self.0.run(op, ins, outs),
        }
    }
}

/// Counts the operations that run on a device.
#[derive(Clone, Debug)]
pub struct Counting<B> {
    inner: B,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    launches: AtomicU64,
    fused: AtomicU64,
    bytes: AtomicU64,
}

/// Operations and bytes counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Operations run.
    pub launches: u64,
    /// Fused operations among them.
    pub fused: u64,
    /// Bytes of operands read and results written.
    pub bytes: u64,
    /// Number of the device's allocations from the operating system, since its creation.
    pub system_allocations: u64,
}

impl Counts {
    /// What was counted since an earlier reading of the same device.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            launches: self.launches - earlier.launches,
            fused: self.fused - earlier.fused,
            bytes: self.bytes - earlier.bytes,
            system_allocations: self.system_allocations - earlier.system_allocations,
        }
    }
}

impl<B: Backend> Counting<B> {
    /// Starts counting at zero.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            counters: Arc::default(),
        }
    }

    /// The wrapped device.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The counts so far. Clones of one device share their counts.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            launches: get(&self.counters.launches),
            fused: get(&self.counters.fused),
            bytes: get(&self.counters.bytes),
            system_allocations: self.inner.memory().system_allocations,
        }
    }
}

impl<B: Backend> Backend for Counting<B> {
    forward_backend!(B, inner);

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, B::Buffer>],
        outs: Dests<B::Buffer>,
    ) -> Result<Buffers<B::Buffer>> {
        let read: usize = ins.iter().map(|v| v.meta().bytes()).sum();
        let dtype_size = ins.first().map_or(0, |v| v.dtype.size());
        let written: usize = outs
            .iter()
            .map(|dest| match dest {
                Dest::New(meta) => meta.bytes(),
                Dest::Into(into) => into.1.shape().count() * dtype_size,
            })
            .sum();
        let add = |counter: &AtomicU64, by| counter.fetch_add(by, Ordering::Relaxed);
        add(&self.counters.launches, 1);
        add(&self.counters.fused, u64::from(matches!(op, Op::Fused(_))));
        add(&self.counters.bytes, (read + written) as u64);
        self.inner.run(op, ins, outs)
    }
}
