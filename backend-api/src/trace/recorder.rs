//! Recording a step: symbols, which stand for the values of a step while it is traced.

use std::any::Any;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::{SmallVec, smallvec};

use super::graph::{Node, Operand, StepGraph, Value, Work};
use crate::{Distribution, Error, Layout, Meta, Metas, Result};

/// A value of a step that is being traced. It has a shape and a type, but no elements.
#[derive(Clone)]
pub struct Symbol {
    recorder: Arc<Recorder>,
    value: Value,
}

impl Symbol {
    /// The value in the recorder's graph.
    pub fn value(&self) -> Value {
        self.value
    }

    /// Shape and type of the value.
    ///
    /// # Errors
    /// The recording has ended.
    pub fn meta(&self) -> Result<Meta> {
        let recorded = self.recorder.lock();
        recorded.check_open()?;
        Ok(recorded.graph.meta_of(self.value))
    }

    /// The same value without its gradient.
    pub(crate) fn detach(&self) -> Self {
        let detached = self.meta().and_then(|meta| {
            let operand = (self.clone(), Layout::contiguous(meta.shape));
            let recorder = &self.recorder;
            recorder.record(Work::Detach, &[operand], smallvec![meta])
        });
        match detached {
            Ok(mut symbols) => symbols.swap_remove(0),
            // The recording has ended.
            Err(_) => self.clone(),
        }
    }

    /// The recorder that the value belongs to.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.value)
    }
}

/// The recording of one step.
#[derive(Debug, Default)]
pub struct Recorder {
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    graph: StepGraph,
    captured: Vec<Arc<dyn Any + Send + Sync>>,
    /// Why the graph does not stand for the step.
    refusal: Option<&'static str>,
    ended: bool,
}

impl Recorded {
    fn check_open(&self) -> Result<()> {
        match self.ended {
            true => Err(not_available("an operand")),
            false => Ok(()),
        }
    }
}

/// Room for the operations of most steps: a node has several hundred bytes, which growing copies.
const USUAL_NODES: usize = 64;

impl Recorder {
    /// Starts a recording.
    pub fn new() -> Arc<Self> {
        let recorder = Arc::<Self>::default();
        recorder.lock().graph.nodes.reserve(USUAL_NODES);
        recorder
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // Every change is one push or one assignment, so the recording is consistent after a panic.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn symbol(self: &Arc<Self>, value: Value) -> Symbol {
        Symbol {
            recorder: self.clone(),
            value,
        }
    }

    /// The next input of the step.
    pub fn input(self: &Arc<Self>, meta: Meta) -> Symbol {
        let inputs = &mut self.lock().graph.inputs;
        inputs.push(meta);
        self.symbol(Value::Input(inputs.len() - 1))
    }

    /// The next state of the step.
    pub fn state(self: &Arc<Self>, meta: Meta) -> Symbol {
        let states = &mut self.lock().graph.states;
        states.push(meta);
        self.symbol(Value::State(states.len() - 1))
    }

    /// A tensor that is the same for all steps.
    pub fn capture(self: &Arc<Self>, tensor: Arc<dyn Any + Send + Sync>, meta: Meta) -> Symbol {
        let mut recorded = self.lock();
        recorded.captured.push(tensor);
        recorded.graph.captured.push(meta);
        self.symbol(Value::Captured(recorded.captured.len() - 1))
    }

    /// Records an operation.
    ///
    /// # Errors
    /// An operand belongs to another recording, or the recording has ended.
    pub fn record(
        self: &Arc<Self>,
        work: Work,
        operands: &[(Symbol, Layout)],
        results: Metas,
    ) -> Result<SmallVec<[Symbol; 3]>> {
        if operands
            .iter()
            .any(|(s, _)| !Arc::ptr_eq(&s.recorder, self))
        {
            self.refuse("two traced steps are mixed in one operation");
            return Err(not_available("an operand"));
        }
        let recorded = &mut *self.lock();
        recorded.check_open()?;
        let graph = &mut recorded.graph;
        let operands = operands.iter().map(|(symbol, layout)| Operand {
            value: symbol.value,
            layout: *layout,
            dtype: graph.meta_of(symbol.value).dtype,
        });
        let operands = operands.collect();
        let (node, count) = (graph.nodes.len(), results.len());
        graph.nodes.push(Node {
            work,
            operands,
            results,
        });
        let symbol = |k| self.symbol(Value::Node(node, k));
        Ok((0..count).map(symbol).collect())
    }

    /// Records random numbers of the step.
    pub(crate) fn noise(
        self: &Arc<Self>,
        key: &Key,
        distribution: Distribution,
        meta: Meta,
    ) -> Result<Symbol> {
        let work = Work::Noise {
            stream: key.stream,
            salt: key.salt,
            distribution,
        };
        let mut symbols = self.record(work, &[], smallvec![meta])?;
        Ok(symbols.swap_remove(0))
    }

    /// Notes that the graph does not stand for the step.
    pub fn refuse(&self, reason: &'static str) {
        self.lock().refusal.get_or_insert(reason);
    }

    /// Whether it is known that the graph does not stand for the step.
    pub fn is_refused(&self) -> bool {
        self.lock().refusal.is_some()
    }

    /// A copy of what is recorded so far.
    pub fn so_far(&self) -> StepGraph {
        self.lock().graph.clone()
    }

    /// Ends the recording: the graph with the given results, without unused nodes, and the tensors
    /// that it captures.
    ///
    /// # Errors
    /// The graph does not stand for the step; the text says why.
    pub fn finish(
        &self,
        outputs: Vec<Operand>,
        new_states: Vec<Operand>,
    ) -> Result<(StepGraph, Vec<Arc<dyn Any + Send + Sync>>), &'static str> {
        let recorded = &mut *self.lock();
        recorded.ended = true;
        if let Some(reason) = recorded.refusal {
            return Err(reason);
        }
        let mut graph = mem::take(&mut recorded.graph);
        graph.outputs = outputs;
        graph.new_states = new_states;
        let kept = graph.prune();
        let captured = kept.into_iter().map(|i| recorded.captured[i].clone());
        Ok((graph, captured.collect()))
    }
}

/// The key of random numbers; see [`Tensor::random`](crate::Tensor::random).
///
/// The key of a step's numbers consists of the run's stream and the time of the step. While a step
/// is traced, its time is open.
#[derive(Clone, Debug)]
pub struct Key {
    stream: u64,
    time: Time,
    salt: Option<u64>,
}

#[derive(Clone, Debug)]
enum Time {
    Any,
    At(u64),
    Traced(Arc<Recorder>),
}

impl From<u64> for Key {
    fn from(stream: u64) -> Self {
        Self {
            stream,
            time: Time::Any,
            salt: None,
        }
    }
}

impl Key {
    /// The key at a time.
    pub fn at(self, time: usize) -> Self {
        Self {
            time: Time::At(time as u64),
            ..self
        }
    }

    /// The key at the time of a traced step.
    pub fn traced(self, recorder: &Arc<Recorder>) -> Self {
        Self {
            time: Time::Traced(recorder.clone()),
            ..self
        }
    }

    /// The same key for another purpose; labels give unrelated numbers.
    pub fn salted(self, label: u64) -> Self {
        Self {
            salt: Some(label),
            ..self
        }
    }

    /// The key as a number, or the recorder if the time is open.
    pub(crate) fn resolve(&self) -> Result<u64, &Arc<Recorder>> {
        match &self.time {
            Time::Any => Ok(salted(self.stream, self.salt)),
            Time::At(time) => Ok(step_key(self.stream, *time, self.salt)),
            Time::Traced(recorder) => Err(recorder),
        }
    }
}

/// Equal keys give equal numbers.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self.resolve(), other.resolve()) {
            (Ok(a), Ok(b)) => a == b,
            (Err(a), Err(b)) => {
                Arc::ptr_eq(a, b) && (self.stream, self.salt) == (other.stream, other.salt)
            }
            _ => false,
        }
    }
}

fn salted(key: u64, salt: Option<u64>) -> u64 {
    salt.map_or(key, |salt| crate::philox::derive(key, salt))
}

/// The key of a step's random numbers.
pub(crate) fn step_key(stream: u64, time: u64, salt: Option<u64>) -> u64 {
    salted(crate::philox::derive(stream, time), salt)
}

pub(crate) fn not_available(arg: &str) -> Error {
    Error::argument(
        "trace",
        arg,
        "has no elements while its step is traced; the step then runs untraced",
    )
}
