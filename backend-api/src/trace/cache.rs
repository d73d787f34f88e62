//! The compiled steps of a device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::graph::{GraphKey, StepGraph};
use super::regions::Regions;

/// Steps that a device has compiled, by their graphs. A device has one, so that a step that is
/// traced again is not compiled again.
#[derive(Debug, Default)]
pub struct StepCache {
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    /// Number of lookups so far.
    clock: u64,
    /// With the clock of the last use.
    steps: HashMap<GraphKey, (u64, Arc<Regions>)>,
}

/// Steps that a [`StepCache`] holds; the one that was not used for the longest time goes.
const CACHED_STEPS: usize = 256;

impl StepCache {
    /// The regions of a graph; `make` computes them if they are not cached.
    pub(crate) fn regions(
        &self,
        graph: StepGraph,
        make: impl FnOnce(StepGraph) -> Regions,
    ) -> Arc<Regions> {
        let lock = || self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let key = graph.key();
        {
            let cached = &mut *lock();
            cached.clock += 1;
            if let Some((used, known)) = cached.steps.get_mut(&key) {
                *used = cached.clock;
                return known.clone();
            }
        }
        // Compiling takes a while, so it runs without the lock.
        let made = Arc::new(make(graph));
        let cached = &mut *lock();
        if cached.steps.len() >= CACHED_STEPS {
            let oldest = cached.steps.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                cached.steps.remove(&oldest);
            }
        }
        cached.steps.insert(key, (cached.clock, made.clone()));
        made
    }
}
