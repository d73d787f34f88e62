//! The matrices of a layer in panels.

use std::ops::Range;
use std::sync::Arc;

use backend_api::{Recurrence, Result};
use smallvec::SmallVec;

use super::{Layer, Sizes};
use crate::device::Cpu;
use crate::element::{Float, singles};
use crate::packed::{FEW, Packed, Unpacked};
use crate::storage::{Derivation, Input};
use crate::{amx, bf16};

/// A matrix to multiply with, as exact as the device has been asked for.
#[derive(Clone, Debug)]
pub(super) enum Matrix<T> {
    Exact(Arc<Packed<T>>),
    Bf16(Arc<bf16::Packed>),
    /// For the matrix unit, exact or not.
    Unit(Arc<amx::Packed>),
}

/// What a part of a sequence multiplies with to go forward, for all units or some.
#[derive(Debug)]
pub(super) struct Weights<'a, T: Float> {
    /// The input's kernel, and the bias of the same columns.
    pub(super) input: Matrix<T>,
    pub(super) bias: Arc<Vec<T>>,
    /// Those of the parameters that are matrices.
    pub(super) recurrent: SmallVec<[Matrix<T>; 2]>,
    /// Those that are vectors.
    pub(super) vectors: Vec<&'a [T]>,
}

/// The widths in units of the matrices that meet `h`, or what is made of it.
fn kernel_gates(recurrence: Recurrence) -> &'static [usize] {
    match recurrence {
        Recurrence::Gru { .. } | Recurrence::GruResetAfter { .. } => &[2, 1],
        Recurrence::Basic { .. } => &[1],
        _ => &[4],
    }
}

/// The columns that belong to some units, gate by gate.
fn columns(gates: usize, n: usize, units: &Range<usize>) -> Vec<usize> {
    let gate = |g| units.clone().map(move |u| g * n + u);
    (0..gates).flat_map(gate).collect()
}

impl<T: Float> Layer<'_, T> {
    /// The weights of some units, to go forward.
    pub(super) fn weights(&self, cpu: &Cpu, units: &Range<usize>) -> Result<Weights<'_, T>> {
        let Self { sizes, .. } = self;
        let n = sizes.n;
        let pack = |matrix: &Input<'_>, gates: usize, rows: usize| {
            self.packed(cpu, matrix, (units, false), rows, |data| Unpacked {
                data,
                k: matrix.layout.shape()[0],
                row_stride: matrix.layout.shape()[1],
                column_stride: 1,
                columns: match gates {
                    0 => (0..sizes.p).collect(),
                    gates => columns(gates, n, units),
                },
            })
        };
        let widths = kernel_gates(self.recurrence);
        let mut recurrent = SmallVec::new();
        for (kernel, &width) in self.matrices.iter().zip(widths) {
            recurrent.push(pack(kernel, width, sizes.batch)?);
        }
        if let Some(projection) = self.matrices.get(widths.len()) {
            recurrent.push(pack(projection, 0, sizes.batch)?);
        }
        Ok(Weights {
            input: pack(&self.kernel, sizes.gates, sizes.batch * sizes.steps)?,
            bias: self.bias_of(cpu, units)?,
            recurrent,
            vectors: self.vectors.iter().map(|v| &v[units.clone()]).collect(),
        })
    }

    /// The bias of some units, gate by gate.
    fn bias_of(&self, cpu: &Cpu, units: &Range<usize>) -> Result<Arc<Vec<T>>> {
        let Sizes { n, gates, .. } = self.sizes;
        let of = Derivation {
            layout: self.bias.layout,
            part: units.clone(),
            form: [false; 2],
        };
        self.kept(&self.bias, &of, || {
            let all = cpu.dense::<T>(&self.bias)?;
            let gate = |g: usize| &all[g * n + units.start..g * n + units.end];
            Ok((0..gates).map(gate).collect::<Vec<_>>().concat())
        })
    }

    /// The matrices that meet the state, transposed, for the gradients of some units: gradients of sums go back to what these were made of.
    pub(super) fn transposed(&self, cpu: &Cpu, units: &Range<usize>) -> Result<Vec<Matrix<T>>> {
        let pack = |matrix| self.transpose(cpu, matrix, units, self.sizes.batch);
        self.matrices.iter().map(pack).collect()
    }

    /// The input's kernel, transposed.
    pub(super) fn transposed_input(&self, cpu: &Cpu) -> Result<Matrix<T>> {
        let Sizes {
            batch, steps, n, ..
        } = self.sizes;
        self.transpose(cpu, &self.kernel, &(0..n), batch * steps)
    }

    fn transpose(
        &self,
        cpu: &Cpu,
        matrix: &Input<'_>,
        units: &Range<usize>,
        rows: usize,
    ) -> Result<Matrix<T>> {
        let shape = matrix.layout.shape();
        let all = units.len() == self.sizes.n;
        let columns = if all { 0..shape[0] } else { units.clone() };
        self.packed(cpu, matrix, (units, true), rows, |data| Unpacked {
            data,
            k: shape[1],
            row_stride: 1,
            column_stride: shape[1],
            columns: columns.clone().collect(),
        })
    }

    /// A matrix in panels, of some units or transposed, to be multiplied with so many rows at a time; kept with it if it is
    /// going to be used again.
    fn packed<'d>(
        &self,
        cpu: &Cpu,
        matrix: &Input<'d>,
        (units, transposed): (&Range<usize>, bool),
        rows: usize,
        describe: impl Fn(&[T]) -> Unpacked<'_, T>,
    ) -> Result<Matrix<T>> {
        let data = cpu.dense::<T>(matrix)?;
        let of = Derivation {
            layout: matrix.layout,
            part: units.clone(),
            form: [rows <= FEW, transposed],
        };
        if (self.unit || self.bf16)
            && let Some(data) = singles(&data)
        {
            // What describes a matrix reads none of it.
            let Unpacked {
                k,
                row_stride,
                column_stride,
                columns,
                ..
            } = describe(&[]);
            let source = Unpacked {
                data,
                k,
                row_stride,
                column_stride,
                columns,
            };
            if !self.unit {
                let make = || bf16::Packed::new(cpu, &source);
                return Ok(Matrix::Bf16(self.kept(matrix, &of, make)?));
            }
            let make = || amx::Packed::new(cpu, &source, self.bf16);
            let packed = self.kept(matrix, &of, make)?;
            if packed.is_regular() {
                return Ok(Matrix::Unit(packed));
            }
        }
        let make = || Packed::new(cpu, &describe(&data), rows);
        Ok(Matrix::Exact(self.kept(matrix, &of, make)?))
    }

    /// What is made of an operand; kept with it if it is going to be used again.
    fn kept<D: Send + Sync + 'static>(
        &self,
        operand: &Input<'_>,
        of: &Derivation,
        make: impl FnOnce() -> Result<D>,
    ) -> Result<Arc<D>> {
        match self.reuse {
            true => operand.buffer.derived(of, make),
            false => make().map(Arc::new),
        }
    }
}
