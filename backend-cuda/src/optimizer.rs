//! Optimizer steps: in place, for many tensors in one launch.

use backend_api::{AdamStep, Buffers, Dest, Dests, Fused, Meta, Op, Result, Update, update_by_run};
use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::CUdeviceptr;
use smallvec::smallvec;

use crate::arguments::{Args, Grid, Kernel};
use crate::buffer::{CudaBuffer, Input};
use crate::device::Cuda;
use crate::kernels::Module;

/// Most tensors of a launch; `TENSORS` in `optimizer.cu`.
const TENSORS: usize = 32;
/// Most operands of a step; `OPERANDS` in `optimizer.cu`.
const OPERANDS: usize = 4;

/// The tensors of a launch, in the layout of `Tensors` in `optimizer.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tensors {
    /// The number of elements of the tensors before each, and of all in the places after the last.
    before: [i64; TENSORS + 1],
    at: [[CUdeviceptr; OPERANDS]; TENSORS],
}

// SAFETY: the kernels declare a struct of the same layout.
unsafe impl DeviceRepr for Tensors {}

impl Cuda {
    /// [`Op::Fused`] of an optimizer step, with new buffers for its results.
    pub(crate) fn optimize(
        &self,
        fused: &Fused,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let copied = |x: &Input<'_>| {
            let mut copy = self.copy(&[*x], smallvec![Dest::New(x.meta())])?;
            Ok(copy.swap_remove(0))
        };
        let (old, others) = ins.split_at(outs.len());
        let metas: Vec<Meta> = old.iter().map(Input::meta).collect();
        let mut new: Buffers<CudaBuffer> = old.iter().map(copied).collect::<Result<_>>()?;
        let update = Update {
            state: new.iter_mut().zip(metas).collect(),
            others: others.iter().copied().collect(),
        };
        self.update_floats(fused, &mut [update])?;
        new.into_iter()
            .zip(outs)
            .map(|(result, dest)| self.moved_to(result, dest))
            .collect()
    }

    /// An operation in place, if it is an optimizer step.
    pub(crate) fn update_floats(
        &self,
        fused: &Fused,
        updates: &mut [Update<'_, CudaBuffer>],
    ) -> Result<()> {
        match fused {
            Fused::Sgd { lr } => self.step("sgd", &[*lr], updates),
            Fused::Adam(step) => self.step("adam", &constants(step), updates),
            other => update_by_run(self, &Op::Fused(other.clone()), updates),
        }
    }
}

impl Cuda {
    /// Runs the kernel on all tensors.
    fn step(
        &self,
        name: &'static str,
        constants: &[f64],
        updates: &mut [Update<'_, CudaBuffer>],
    ) -> Result<()> {
        let first = updates.first().and_then(|update| update.state.first());
        let Some(dtype) = first.map(|(_, meta)| meta.dtype) else {
            return Ok(());
        };
        for batch in updates.chunks_mut(TENSORS) {
            let mut tensors = Tensors {
                before: [0; TENSORS + 1],
                at: [[0; OPERANDS]; TENSORS],
            };
            let mut held = Vec::with_capacity(batch.len());
            for (i, update) in batch.iter_mut().enumerate() {
                let mut at = tensors.at[i].iter_mut();
                for ((buffer, _), at) in update.state.iter_mut().zip(&mut at) {
                    buffer.unshare(self)?;
                    *at = buffer.address()?;
                }
                for (x, at) in update.others.iter().zip(&mut at) {
                    let (address, buffer) = self.dense_address(x)?;
                    *at = address;
                    held.push(buffer);
                }
                let count = update.state[0].1.shape.count() as i64;
                let end = tensors.before[i] + count;
                tensors.before[i + 1..].fill(end);
            }
            let mut args = Args::default();
            for constant in constants {
                args.push_float(dtype, *constant);
            }
            args.push(tensors);
            let kernel = Kernel::new(Module::Optimizer, name, dtype.name());
            self.launch(kernel, Grid::Elements(tensors.before[TENSORS]), args)?;
        }
        Ok(())
    }
}

/// The constants of an Adam step, in the order of the kernel's arguments.
fn constants(step: &AdamStep) -> [f64; 7] {
    [
        step.corrected_lr(),
        step.beta1,
        1.0 - step.beta1,
        step.beta2,
        1.0 - step.beta2,
        step.epsilon,
        step.keep,
    ]
}
