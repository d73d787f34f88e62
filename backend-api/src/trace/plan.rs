//! A recurrence over all steps as one operation.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::{SmallVec, smallvec};

use super::graph::{Operand, StepGraph};
#[cfg(doc)]
use crate::Fused;
use crate::operands::Args;
use crate::{Error, Meta, Metas, Result, Shape};

/// What a device makes of a step to run it; see
/// [`Backend::compile_step`](crate::Backend::compile_step). Its text is for people who want to know
/// how their cell runs.
pub trait StepProgram: Any + fmt::Display + Send + Sync {}

impl<T: Any + fmt::Display + Send + Sync> StepProgram for T {}

/// A shared program.
pub type SharedProgram = Arc<dyn StepProgram>;

/// A sum over all rows of all steps, of rows `[batch, width]`: `aᵀ b` for two, or the sum of one.
/// The gradient of a captured matrix is such a sum.
pub type RowSum = SmallVec<[RowSource; 2]>;

/// The rows of a [`RowSum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowSource {
    /// An input of the step.
    Input(usize),
    /// An output of the step.
    Output(usize),
}

/// A step and how a device runs it.
pub struct CompiledStep {
    graph: StepGraph,
    program: Result<SharedProgram, String>,
    sums: Vec<RowSum>,
    hidden: usize,
    /// What others derived from the step, by a key of theirs: its gradient.
    derived: Mutex<HashMap<Vec<bool>, Arc<dyn Any + Send + Sync>>>,
}

impl CompiledStep {
    /// A step with the program that a device made of it, or the reason why there is none.
    pub fn new(graph: StepGraph, program: Result<SharedProgram, String>) -> Self {
        Self {
            graph,
            program,
            sums: Vec::new(),
            hidden: 0,
            derived: Mutex::default(),
        }
    }

    /// The step with sums over all steps. The last `hidden` outputs are no results: only sums read
    /// them.
    pub fn with_sums(self, sums: Vec<RowSum>, hidden: usize) -> Self {
        Self {
            sums,
            hidden,
            ..self
        }
    }

    /// The sums over all steps.
    pub fn sums(&self) -> &[RowSum] {
        &self.sums
    }

    /// Number of last outputs that only sums read.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The step.
    pub fn graph(&self) -> &StepGraph {
        &self.graph
    }

    /// The device's program, or the reason why the step runs operation by operation.
    pub fn program(&self) -> Result<&SharedProgram, &str> {
        self.program.as_ref().map_err(String::as_str)
    }

    /// A value derived from the step, computed when it is first asked for.
    ///
    /// # Errors
    /// Those of `derive`.
    pub fn derived<D: Send + Sync + 'static>(
        &self,
        key: &[bool],
        derive: impl FnOnce() -> Result<D>,
    ) -> Result<Arc<D>> {
        let lock = || self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(key).cloned();
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return Ok(known);
        }
        let made = Arc::new(derive()?);
        lock().insert(key.to_vec(), made.clone());
        Ok(made)
    }
}

impl fmt::Debug for CompiledStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledStep")
            .field("graph", &self.graph)
            .field("program", &self.program.as_ref().map(|_| "compiled"))
            .field("sums", &self.sums)
            .finish_non_exhaustive()
    }
}

/// A recurrence over all steps, as one operation. Time is the first axis.
///
/// The operands of [`Fused::Scan`] are, in this order, with the shapes and types of the graph:
/// * the inputs of all steps, `[steps, batch, ..]` each;
/// * the captured tensors;
/// * the initial state, `[batch, ..]` each;
/// * if [`ragged`](Self::ragged), `lengths: [batch]` int, not negative; a length above `steps`
///   counts as `steps`.
///
/// The results are:
/// * the outputs of all steps, `[steps, batch, ..]` each, zero at and after a row's length; all
///   but those that follow;
/// * the final state. Steps at and after a row's length leave its state as it is;
/// * [`saved`](Self::saved) further outputs, unspecified at and after a row's length;
/// * the [sums](CompiledStep::sums), whose [hidden](CompiledStep::hidden) rows are the last outputs
///   of the graph.
///
/// Inputs at and after a row's length have no effect, even if they are NaN.
#[derive(Clone, Debug)]
pub struct ScanPlan {
    /// One step.
    pub step: Arc<CompiledStep>,
    /// Number of steps.
    pub steps: usize,
    /// Whether the steps run from the last one to the first. The elements of inputs and outputs
    /// keep their places.
    pub reverse: bool,
    /// Whether the operands include `lengths`.
    pub ragged: bool,
    /// Whether the device caches what it makes of the captured tensors as long as their buffers
    /// live. Does not affect results.
    pub reuse: bool,
    /// Number of outputs that are returned after the final state: values for a gradient. They come
    /// before those that only sums read.
    pub saved: usize,
}

impl PartialEq for ScanPlan {
    fn eq(&self, other: &Self) -> bool {
        let settings = |p: &Self| (p.steps, p.reverse, p.ragged, p.reuse, p.saved);
        settings(self) == settings(other)
            && (Arc::ptr_eq(&self.step, &other.step)
                || (self.step.graph == other.step.graph
                    && self.step.sums == other.step.sums
                    && self.step.hidden == other.step.hidden))
    }
}

impl ScanPlan {
    /// The device's program as the type that the device made it of.
    pub fn program<P: StepProgram>(&self) -> Option<&P> {
        let program: &dyn Any = &**self.step.program.as_ref().ok()?;
        program.downcast_ref()
    }

    /// The graph of one step.
    pub fn graph(&self) -> &StepGraph {
        &self.step.graph
    }

    /// Whether the device has a program for the step. Otherwise the default implementation runs
    /// the operations of the graph step by step.
    pub fn is_compiled(&self) -> bool {
        self.step.program.is_ok()
    }

    /// Number of outputs that are returned before the final state.
    pub fn shown(&self) -> usize {
        let others = self.saved.saturating_add(self.step.hidden);
        self.graph().outputs.len().saturating_sub(others)
    }

    /// Number of operands.
    pub fn operands(&self) -> usize {
        let graph = self.graph();
        graph.inputs.len() + graph.captured.len() + graph.states.len() + usize::from(self.ragged)
    }

    /// `[steps, ..]` of a value of one step.
    fn stacked(&self, meta: Meta) -> Result<Meta> {
        Ok(Meta::new(meta.shape.insert(0, self.steps)?, meta.dtype))
    }

    pub(crate) fn infer(&self, args: &Args<'_>) -> Result<Metas> {
        let graph = self.graph();
        args.count(self.operands())?;
        let mut next = args.ins.iter();
        let mut check = |kind: &str, i: usize, steps: Option<usize>, of_step: &Meta| {
            let name = || format!("{kind} {i}");
            match next.next() {
                Some(found) if of_step.is_step_of(found, steps) => Ok(()),
                Some(found) if steps.is_some() => {
                    args.same(&name(), *found, self.stacked(*of_step)?)
                }
                Some(found) => args.same(&name(), *found, *of_step),
                None => Err(Error::argument(args.op, name(), "is missing")),
            }
        };
        for (i, meta) in graph.inputs.iter().enumerate() {
            check("input", i, Some(self.steps), meta)?;
        }
        for (i, meta) in graph.captured.iter().enumerate() {
            check("captured tensor", i, None, meta)?;
        }
        for (i, meta) in graph.states.iter().enumerate() {
            check("state", i, None, meta)?;
        }
        if let (true, Some(lengths)) = (self.ragged, args.ins.last()) {
            args.check_lengths(*lengths, graph.batch())?;
        }
        let count = graph.outputs.len();
        if self.saved.saturating_add(self.step.hidden) > count {
            let problem = format!("is {}, but the step has {count} outputs", self.saved);
            return Err(Error::argument(args.op, "saved", problem));
        }
        let (outputs, rest) = graph.outputs.split_at(self.shown());
        let saved = &rest[..self.saved];
        let mut results: Metas = smallvec![];
        for output in outputs {
            results.push(self.stacked(output.meta())?);
        }
        results.extend_from_slice(&graph.states);
        for output in saved {
            results.push(self.stacked(output.meta())?);
        }
        for sum in &self.step.sums {
            results.push(self.sum_of(sum).map_err(|problem| {
                Error::argument(args.op, "sums", format!("has {sum:?}, but {problem}"))
            })?);
        }
        Ok(results)
    }

    /// Shape and type of a sum.
    fn sum_of(&self, sum: &[RowSource]) -> Result<Meta, String> {
        let graph = self.graph();
        let row = |source: &RowSource| {
            let meta = match *source {
                RowSource::Input(i) => graph.inputs.get(i).copied(),
                RowSource::Output(i) => graph.outputs.get(i).map(Operand::meta),
            };
            let meta = meta.ok_or_else(|| format!("there is no {source:?}"))?;
            match meta.shape.rank() {
                2 => Ok(meta),
                _ => Err(format!("{source:?} is {}, not rows", meta.shape)),
            }
        };
        let widths =
            |metas: &[Meta]| Shape::new(&metas.iter().map(|m| m.shape.last()).collect::<Vec<_>>());
        let metas = sum.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let shape = widths(&metas).map_err(|error| error.to_string())?;
        match &*metas {
            [a] => Ok(Meta::new(shape, a.dtype)),
            [a, b] if a.dtype == b.dtype => Ok(Meta::new(shape, a.dtype)),
            _ => Err("one or two rows of one type are summed".to_owned()),
        }
    }
}
