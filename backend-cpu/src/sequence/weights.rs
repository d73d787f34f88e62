//! The packed matrices of a layer.

use std::ops::Range;
use std::sync::Arc;

use backend_api::{Recurrence, Result};
use smallvec::SmallVec;

use super::layer::{Layer, LayerDims};
use crate::device::Cpu;
use crate::element::Float;
use crate::packed::MatrixView;
use crate::packed_matrix::{PackedMatrix, Packing};
use crate::storage::{Input, PackKey};

/// The right-hand matrices of a forward pass, for all units or a range of them.
#[derive(Debug)]
pub(super) struct Weights<'a, T: Float> {
    /// The input kernel, and the bias of the same columns.
    pub(super) input: PackedMatrix<T>,
    pub(super) bias: Arc<Vec<T>>,
    /// The recurrent parameters that are matrices.
    pub(super) recurrent: SmallVec<[PackedMatrix<T>; 2]>,
    /// The recurrent parameters that are vectors.
    pub(super) vectors: Vec<&'a [T]>,
}

/// Widths, in gates, of the matrices that multiply `h` or a value computed from it.
fn kernel_gates(recurrence: Recurrence) -> &'static [usize] {
    match recurrence {
        Recurrence::Gru { .. } | Recurrence::GruResetAfter { .. } => &[2, 1],
        Recurrence::Basic { .. } => &[1],
        _ => &[4],
    }
}

/// The columns of a range of units, gate by gate.
fn columns(gates: usize, n: usize, units: &Range<usize>) -> Vec<usize> {
    let gate = |g| units.clone().map(move |u| g * n + u);
    (0..gates).flat_map(gate).collect()
}

impl<T: Float> Layer<'_, T> {
    /// The forward weights of a range of units.
    pub(super) fn weights(&self, cpu: &Cpu, units: &Range<usize>) -> Result<Weights<'_, T>> {
        let Self { sizes, .. } = self;
        let n = sizes.n;
        let pack = |matrix: &Input<'_>, gates: usize, rows: usize| {
            self.packed(cpu, matrix, (units, false), rows, |data| MatrixView {
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

    /// The bias of a range of units, gate by gate.
    fn bias_of(&self, cpu: &Cpu, units: &Range<usize>) -> Result<Arc<Vec<T>>> {
        let LayerDims { n, gates, .. } = self.sizes;
        let of = PackKey {
            layout: self.bias.layout,
            view: None,
            part: units.clone(),
            form: [false; 2],
        };
        self.packing(1).kept(&self.bias, &of, || {
            let all = cpu.dense::<T>(&self.bias)?;
            let gate = |g: usize| &all[g * n + units.start..g * n + units.end];
            Ok((0..gates).map(gate).collect::<Vec<_>>().concat())
        })
    }

    /// The recurrent matrices, transposed, for the gradients of a range of units: the gradient of a
    /// sum, times the transposed matrix, is the gradient of the matrix's input.
    pub(super) fn transposed(
        &self,
        cpu: &Cpu,
        units: &Range<usize>,
    ) -> Result<Vec<PackedMatrix<T>>> {
        let pack = |matrix| self.transpose(cpu, matrix, units, self.sizes.batch);
        self.matrices.iter().map(pack).collect()
    }

    /// The input kernel, transposed.
    pub(super) fn transposed_input(&self, cpu: &Cpu) -> Result<PackedMatrix<T>> {
        let LayerDims {
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
    ) -> Result<PackedMatrix<T>> {
        let shape = matrix.layout.shape();
        let all = units.len() == self.sizes.n;
        let columns = if all { 0..shape[0] } else { units.clone() };
        self.packed(cpu, matrix, (units, true), rows, |data| MatrixView {
            data,
            k: shape[1],
            row_stride: 1,
            column_stride: shape[1],
            columns: columns.clone().collect(),
        })
    }

    /// Packs a matrix, for a range of units or transposed, to be multiplied with `rows` rows at a
    /// time. The packed matrix is cached with `matrix` if the plan reuses it.
    fn packed<'d>(
        &self,
        cpu: &Cpu,
        matrix: &Input<'d>,
        (units, transposed): (&Range<usize>, bool),
        rows: usize,
        describe: impl Fn(&[T]) -> MatrixView<'_, T>,
    ) -> Result<PackedMatrix<T>> {
        let packing = self.packing(rows);
        let of = PackKey {
            layout: matrix.layout,
            view: None,
            part: units.clone(),
            form: [packing.is_for_few(), transposed],
        };
        PackedMatrix::new(cpu, matrix, &of, packing, describe)
    }

    /// How matrices are packed that are multiplied with `rows` rows at a time.
    fn packing(&self, rows: usize) -> Packing {
        Packing {
            rows,
            amx: self.amx,
            bf16: self.bf16,
            reuse: self.reuse,
        }
    }
}
