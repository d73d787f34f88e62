//! The implementation of [`Backend`]: which kernel runs an operation, by its operands' type.

use std::sync::Arc;

use backend_api::trace::{SharedProgram, StepCache, StepGraph};
use backend_api::{
    Activation, Backend, Buffers, DType, Dests, Fused, Layout, Memory, Meta, Op, Result, Update,
    View, check_accumulate, check_bytes, check_download, check_run, check_update, compose,
    is_widened, run_widened, update_by_run,
};
use cudarc::driver::result;

use crate::buffer::{CudaBuffer, Input};
use crate::device::Cuda;
use crate::driver;
use crate::launch::unsupported;
use crate::ranges::range;
use crate::scan::StepKernels;
use crate::swapper::Swapped;

impl Backend for Cuda {
    type Buffer = CudaBuffer;
    type Swapped = Swapped;

    fn name(&self) -> String {
        driver::name(self.index())
    }

    fn same_device(&self, other: &Self) -> bool {
        self.shares(other)
    }

    fn extent(&self, buffer: &CudaBuffer) -> Result<(usize, DType)> {
        Ok((buffer.count(), buffer.dtype()))
    }

    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<CudaBuffer> {
        check_bytes("upload", meta, bytes.len())?;
        let block = self.pool().take(bytes.len())?;
        self.copy_to_device(bytes, &block)?;
        Ok(CudaBuffer::new(block, meta.dtype, meta.shape.count()))
    }

    fn download(&self, src: View<'_, CudaBuffer>, into: &mut [u8]) -> Result<()> {
        check_download(self, &src, into.len())?;
        let (buffer, offset) = self.dense(&src)?;
        if !into.is_empty() {
            let address = buffer.address()? + (offset * src.dtype.size()) as u64;
            self.bind()?;
            // SAFETY: the view has `into.len()` bytes; the copy is complete before `into` is used.
            unsafe { result::memcpy_dtoh_async(into, address, self.stream()) }
                .map_err(self.failed("copying from the device"))?;
        }
        self.wait_for_stream()?;
        self.check_faults()
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, CudaBuffer>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        // The proof of every launch, copy and product of the operation.
        check_run(self, op, ins, &outs)?;
        let _range = range(op.name());
        let first = ins.first().map_or(DType::Bool, |x| x.dtype);
        let multiplied = matches!(op, Op::MatMul { .. }) && self.multiplies(first);
        if !multiplied && is_widened(op, ins) {
            return run_widened(self, op, ins, outs);
        }
        let float = |dtype: DType| match dtype.is_float() {
            true => Ok(dtype),
            false => Err(unsupported(op.name(), dtype)),
        };
        match op {
            Op::Fill { value, .. } => self.fill(*value, outs),
            Op::Random {
                key,
                distribution,
                meta,
            } => self.random(float(meta.dtype)?, *key, *distribution, outs),
            Op::Copy => self.copy(ins, outs),
            Op::Cast { to } => self.cast(*to, ins, outs),
            Op::Unary(f) => self.unary(float(first)?, *f, ins, outs),
            Op::Affine { mul, add } => self.affine(float(first)?, *mul, *add, ins, outs),
            Op::Clamp { min, max } => self.clamp(float(first)?, *min, *max, ins, outs),
            Op::Binary(f) => self.binary(*f, ins, outs),
            Op::Compare(f) => self.compare(*f, ins, outs),
            Op::Select => self.select(ins, outs),
            Op::Reduce { kind, axis } => self.reduce(*kind, *axis, ins, outs),
            Op::ArgMax { axis } => self.argmax(*axis, ins, outs),
            Op::MatMul { alpha, precision } => {
                self.matmul(float(first)?, *alpha, *precision, ins, outs)
            }
            Op::Concat { axis } => self.concat(*axis, ins, outs),
            Op::Reverse { time, batch } => self.reverse(*time, *batch, ins, outs),
            Op::Gather => self.gather(ins, outs),
            Op::ScatterAdd { .. } => self.scatter_add(ins, outs),
            Op::Fused(Fused::MaskedUpdate { time }) => self.masked_update(*time, ins, outs),
            Op::Fused(Fused::ScatterUpdate) => self.scatter_update(ins, outs),
            Op::Fused(Fused::Scan(plan)) if plan.is_compiled() => self.scan(plan, ins, outs),
            Op::Fused(fused) if first.is_float() => self.run_fused(first, fused, ins, outs),
            Op::Fused(fused) => compose(self, fused, ins, outs),
        }
    }

    fn accumulate(
        &self,
        dst: CudaBuffer,
        at: &Layout,
        src: View<'_, CudaBuffer>,
    ) -> Result<CudaBuffer> {
        check_accumulate(self, &dst, at, &src)?;
        self.accumulate_into(dst, at, &src)
    }

    fn update(&self, op: &Op, updates: &mut [Update<'_, CudaBuffer>]) -> Result<()> {
        check_update(self, op, updates)?;
        let _range = range(op.name());
        let first = updates.first().and_then(|update| update.state.first());
        match (op, first.map(|(_, meta)| meta.dtype)) {
            (Op::Fused(Fused::ScatterUpdate), _) => updates
                .iter_mut()
                .try_for_each(|update| self.update_rows(update)),
            (Op::Fused(fused), Some(DType::F32 | DType::F64)) => self.update_floats(fused, updates),
            _ => update_by_run(self, op, updates),
        }
    }

    fn can_offload(&self) -> bool {
        true
    }

    fn swap_out(&self, buffer: CudaBuffer) -> Result<Swapped> {
        self.move_out(buffer)
    }

    fn swap_in(&self, swapped: Swapped) -> Result<CudaBuffer> {
        self.move_in(swapped)
    }

    fn synchronize(&self) -> Result<()> {
        self.wait_for_stream()?;
        self.swapper().synchronize()?;
        self.check_faults()
    }

    fn memory(&self) -> Memory {
        self.pool().memory()
    }

    fn release_cached(&self) -> Result<()> {
        self.pool().release()?;
        self.swapper().slabs.release()
    }

    fn step_cache(&self) -> Option<&StepCache> {
        Some(self.steps())
    }

    fn compile_step(&self, step: &StepGraph) -> Result<SharedProgram, String> {
        Ok(Arc::new(StepKernels::on(self, step)?))
    }
}

impl Cuda {
    fn run_fused(
        &self,
        dtype: DType,
        fused: &Fused,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        // Kernels are compiled for these activations.
        let gates = fused.recurrent_activation();
        let sigmoid = gates.is_none_or(|f| f == Activation::Sigmoid);
        if !sigmoid || fused.activation().is_some_and(|f| !f.is_common()) {
            return compose(self, fused, ins, outs);
        }
        match fused {
            Fused::BiasActivation { activation } => {
                self.bias_activation(dtype, *activation, ins, outs)
            }
            Fused::ActivationGrad { activation } => {
                self.activation_grad(dtype, *activation, ins, outs)
            }
            Fused::LstmStep(gates) => self.lstm_step(dtype, gates, ins, outs),
            Fused::LstmStepGrad(gates) => self.lstm_step_grad(dtype, gates, ins, outs),
            Fused::GruGates { .. } => self.gru_gates(dtype, ins, outs),
            Fused::GruGatesGrad { .. } => self.gru_gates_grad(dtype, ins, outs),
            Fused::GruOutput { activation } => self.gru_output(dtype, *activation, ins, outs),
            Fused::GruOutputGrad { activation } => {
                self.gru_output_grad(dtype, *activation, ins, outs)
            }
            Fused::SoftmaxCrossEntropy => self.softmax_cross_entropy(dtype, ins, outs),
            Fused::SoftmaxCrossEntropyGrad => self.softmax_cross_entropy_grad(dtype, ins, outs),
            Fused::SquaredNorm => self.squared_norm(dtype, ins, outs),
            Fused::Sgd { .. } | Fused::Adam(_) => self.optimize(fused, ins, outs),
            other => compose(self, other, ins, outs),
        }
    }
}
