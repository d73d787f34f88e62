//! The packed matrices of a layer.

use std::ops::Range;
use std::sync::Arc;

use backend_api::{Recurrence, Result};
use smallvec::SmallVec;

use super::layer::{Layer, LayerDims};
use super::packed_matrix::PackedMatrix;
use crate::amx::PackedAmx;
use crate::bf16::PackedBf16;
use crate::device::Cpu;
use crate::element::{Float, singles};
use crate::packed::{FEW, MatrixView, PackedExact};
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
            part: units.clone(),
            form: [false; 2],
        };
        self.kept(&self.bias, &of, || {
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
        let data = cpu.dense::<T>(matrix)?;
        let of = PackKey {
            layout: matrix.layout,
            part: units.clone(),
            form: [rows <= FEW, transposed],
        };
        if (self.amx || self.bf16)
            && let Some(data) = singles(&data)
        {
            // `describe` does not read the data, so an empty slice suffices.
            let MatrixView {
                k,
                row_stride,
                column_stride,
                columns,
                ..
            } = describe(&[]);
            let source = MatrixView {
                data,
                k,
                row_stride,
                column_stride,
                columns,
            };
            if !self.amx {
                let make = || PackedBf16::new(cpu, &source);
                return Ok(PackedMatrix::Bf16(self.kept(matrix, &of, make)?));
            }
            let make = || PackedAmx::new(cpu, &source, self.bf16);
            let packed = self.kept(matrix, &of, make)?;
            if packed.is_regular() {
                return Ok(PackedMatrix::Amx(packed));
            }
        }
        let make = || PackedExact::new(cpu, &describe(&data), rows);
        Ok(PackedMatrix::Exact(self.kept(matrix, &of, make)?))
    }

    /// Computes a value from an operand. The value is cached with the operand if the plan reuses
    /// it.
    fn kept<D: Send + Sync + 'static>(
        &self,
        operand: &Input<'_>,
        of: &PackKey,
        make: impl FnOnce() -> Result<D>,
    ) -> Result<Arc<D>> {
        match self.reuse {
            true => operand.buffer.cached(of, make),
            false => make().map(Arc::new),
        }
    }
}
