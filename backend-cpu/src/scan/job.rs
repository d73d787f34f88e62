//! The operands and results of a scan.
//!
//! This module contains unsafe code: several threads write to outputs, each its own rows.
#![allow(unsafe_code)]

use std::any::TypeId;
use std::borrow::Cow;
use std::ops::Range;

use backend_api::trace::ScanPlan;
use backend_api::{DType, Error, Meta, Result};
use pulp::Arch;
use smallvec::SmallVec;

use super::program::{Buffer, Memory, Program};
use crate::device::Cpu;
use crate::element::Float;
use crate::packed_matrix::PackedMatrix;
use crate::pool::Scratch;
use crate::steps::Inputs;
use crate::storage::{Dense, Input, Output};

/// A pointer to elements that several threads use.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub(super) *mut T);

// SAFETY: the threads use elements of different rows.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The rows of outputs or states.
type SharedRows<T> = SmallVec<[Shared<T>; 8]>;

impl<T: Float> Shared<T> {
    fn of(output: &mut Output, wanted: usize) -> Result<Self> {
        let elements = output.elements::<T>();
        if elements.len() != wanted {
            let problem = format!("has {} elements, but needs {wanted}", elements.len());
            return Err(Error::argument("scan", "result", problem));
        }
        Ok(Self(elements.as_mut_ptr()))
    }
}

/// Some columns of the right sides of a program's products.
#[derive(Debug)]
pub(super) struct Columns<T> {
    pub(super) ranges: SmallVec<[Range<usize>; 4]>,
    pub(super) matrices: SmallVec<[PackedMatrix<T>; 4]>,
}

impl<T> Columns<T> {
    /// The largest number of columns of a matrix.
    pub(super) fn widest(&self) -> usize {
        self.ranges.iter().map(Range::len).max().unwrap_or(0)
    }
}

/// The operands and results of a scan.
pub(super) struct Job<'a, T: Float> {
    pub(super) arch: Arch,
    pub(super) program: &'a Program,
    /// The program's buffers, with the strides of these inputs.
    pub(super) buffers: Cow<'a, [Buffer]>,
    pub(super) steps: usize,
    pub(super) reverse: bool,
    pub(super) inputs: Vec<Inputs<'a, T>>,
    pub(super) captured: Vec<Dense<'a, T>>,
    pub(super) initial: Vec<Dense<'a, T>>,
    pub(super) constants: Vec<T>,
    /// Of each thread of a team, or one entry for all threads, which have other rows each.
    pub(super) columns: Vec<Columns<T>>,
    pub(super) lengths: Option<Scratch<usize>>,
    pub(super) outputs: SharedRows<T>,
    pub(super) finals: SharedRows<T>,
    /// Number of outputs that are 0 where a row does not run. Sums read no others.
    pub(super) cleared: usize,
    /// The memory of outputs that are no results.
    _hidden: Vec<Scratch<T>>,
}

pub(super) fn missing() -> Error {
    Error::argument("scan", "operands", "are missing")
}

fn check((name, i): (&str, usize), x: &Input<'_>, steps: Option<usize>, meta: &Meta) -> Result<()> {
    if meta.is_step_of(&x.meta(), steps) {
        return Ok(());
    }
    let shape = x.layout.shape();
    let arg = || format!("{name}{i}");
    if x.dtype == meta.dtype {
        let wanted: Vec<_> = steps.iter().chain(meta.shape.dims()).collect();
        let wanted = format!("{wanted:?} is needed");
        return Err(Error::shape("scan", arg(), shape, wanted));
    }
    let wanted = format!("{} is needed", meta.dtype);
    Err(Error::dtype("scan", arg(), x.dtype, wanted))
}

impl<'a, T: Float> Job<'a, T> {
    pub(super) fn new(
        cpu: &Cpu,
        plan: &ScanPlan,
        program: &'a Program,
        ins: &[Input<'a>],
        results: &mut [Output],
    ) -> Result<Self> {
        let graph = plan.graph();
        let number = if TypeId::of::<T>() == TypeId::of::<f32>() {
            DType::F32
        } else {
            DType::F64
        };
        // The unsafe code rests on the program's sizes, and a plan can pair any program and graph.
        if !program.is_of(graph) {
            return Err(Error::argument(
                "scan",
                "step",
                "has the program of another step",
            ));
        }
        if program.dtype != number {
            return Err(Error::dtype(
                "scan",
                "state",
                program.dtype,
                format!("{number} is needed"),
            ));
        }
        let parts = ins
            .split_at_checked(graph.inputs.len())
            .ok_or_else(missing)?;
        let (inputs, rest) = parts;
        let parts = rest
            .split_at_checked(graph.captured.len())
            .ok_or_else(missing)?;
        let (captured, rest) = parts;
        let parts = rest
            .split_at_checked(graph.states.len())
            .ok_or_else(missing)?;
        let (initial, lengths) = parts;
        // The final state lies between the outputs and the saved ones.
        let shown = plan.shown();
        let (outputs, rest) = results.split_at_mut_checked(shown).ok_or_else(missing)?;
        let (finals, saved) = rest
            .split_at_mut_checked(graph.states.len())
            .ok_or_else(missing)?;
        let hidden = program
            .outputs
            .get(shown + saved.len()..)
            .unwrap_or_default()
            .iter();
        let hidden =
            hidden.map(|width| cpu.pool().scratch::<T>(plan.steps * program.batch * width));
        let mut hidden = hidden.collect::<Result<Vec<_>>>()?;
        if finals.len() != graph.states.len()
            || saved.len() != plan.saved
            || lengths.len() != usize::from(plan.ragged)
        {
            return Err(missing());
        }
        let steps = plan.steps;
        let operands = [
            ("x", Some(steps), inputs, &graph.inputs),
            ("captured", None, captured, &graph.captured),
            ("state", None, initial, &graph.states),
        ];
        for (name, steps, found, metas) in operands {
            for (i, (x, meta)) in found.iter().zip(metas).enumerate() {
                check((name, i), x, steps, meta)?;
            }
        }
        let batch = program.batch;
        let rows = |all: &mut [Output], widths: &[usize], steps: usize| -> Result<SharedRows<T>> {
            let mut rows = SharedRows::new();
            for (out, width) in all.iter_mut().zip(widths) {
                rows.push(Shared::of(out, steps * batch * width)?);
            }
            Ok(rows)
        };
        let dense =
            |ins: &[Input<'a>]| ins.iter().map(|x| cpu.dense(x)).collect::<Result<Vec<_>>>();
        // The rest are matrices, which are packed.
        let read = captured
            .iter()
            .zip(&program.read)
            .map(|(x, read)| match read {
                true => cpu.dense(x),
                false => Ok(Dense::Borrowed(&[])),
            });
        let inputs = inputs
            .iter()
            .map(|x| Inputs::new(cpu, x))
            .collect::<Result<Vec<_>>>()?;
        let mut all = rows(outputs, &program.outputs[..shown], steps)?;
        all.extend(rows(saved, &program.outputs[shown..], steps)?);
        all.extend(hidden.iter_mut().map(|rows| Shared(rows.as_mut_ptr())));
        let mut job = Self {
            arch: cpu.arch(),
            program,
            buffers: Cow::Borrowed(&program.buffers),
            steps,
            reverse: plan.reverse,
            inputs,
            columns: Vec::new(),
            captured: read.collect::<Result<_>>()?,
            initial: dense(initial)?,
            constants: program.constants.iter().map(|&x| T::from_f64(x)).collect(),
            lengths: match lengths {
                [lengths] => {
                    if lengths.layout.shape().dims() != [batch] {
                        let expected = format!("the batch is {batch}");
                        let shape = lengths.layout.shape();
                        return Err(Error::shape("scan", "lengths", shape, expected));
                    }
                    Some(cpu.indices("scan", "lengths", lengths, steps, true)?)
                }
                _ => None,
            },
            outputs: all,
            finals: rows(finals, &program.states, 1)?,
            cleared: shown + saved.len(),
            _hidden: hidden,
        };
        job.apply_strides();
        Ok(job)
    }

    /// Sets the distances between rows of inputs.
    fn apply_strides(&mut self) {
        let mut inputs = self.inputs.iter().zip(&self.program.inputs);
        if self.program.batch < 2 || inputs.all(|(input, width)| input.rows == *width) {
            return;
        }
        let buffers = self.buffers.to_mut();
        for buffer in buffers.iter_mut() {
            if let Memory::Input(i) = buffer.memory {
                buffer.row = self.inputs[i].rows;
            }
        }
    }

    /// The number of steps of a row.
    pub(super) fn length(&self, row: usize) -> usize {
        self.lengths
            .as_ref()
            .map_or(self.steps, |lengths| lengths[row])
    }

    /// Whether the threads compute the same rows, each some columns of the products.
    pub(super) fn is_shared(&self) -> bool {
        self.columns.len() > 1
    }
}
