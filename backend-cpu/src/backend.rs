//! The implementation of [`Backend`]: which kernel runs an operation, by its operands' type.

use std::sync::Arc;

use backend_api::trace::{ScanPlan, SharedProgram, StepCache, StepGraph};
use backend_api::{
    Activation, Backend, Buffers, DType, Dests, Error, Fused, Layout, Memory, Meta, Op, Result,
    Update, View, accumulate_widened, check_bytes, check_download, check_update, compose,
    is_widened, run_widened, update_by_run,
};

use crate::device::Cpu;
use crate::element::Float;
use crate::elementwise::unsupported;
use crate::offload::SwappedBuffer;
use crate::scan::compile;
use crate::storage::{CpuBuffer, Input, unshared};
use crate::strided::Walk;

impl Backend for Cpu {
    type Buffer = CpuBuffer;
    type Swapped = SwappedBuffer;

    fn name(&self) -> String {
        "cpu".to_owned()
    }

    fn same_device(&self, other: &Self) -> bool {
        self.shares(other)
    }

    fn extent(&self, buffer: &CpuBuffer) -> Result<(usize, DType)> {
        Ok((buffer.count(), buffer.dtype()))
    }

    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<CpuBuffer> {
        check_bytes("upload", meta, bytes.len())?;
        let mut storage = self.pool().take(bytes.len())?;
        storage.elements_mut::<u8>()[..bytes.len()].copy_from_slice(bytes);
        Ok(CpuBuffer::new(storage, meta.dtype, meta.shape.count()))
    }

    fn download(&self, src: View<'_, CpuBuffer>, into: &mut [u8]) -> Result<()> {
        check_download(self, &src, into.len())?;
        match src.dtype.size() {
            1 => into.copy_from_slice(&self.dense::<u8>(&src)?),
            2 => into.copy_from_slice(bytemuck::cast_slice(&self.dense::<u16>(&src)?)),
            4 => into.copy_from_slice(bytemuck::cast_slice(&self.dense::<u32>(&src)?)),
            _ => into.copy_from_slice(bytemuck::cast_slice(&self.dense::<u64>(&src)?)),
        }
        Ok(())
    }

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, CpuBuffer>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        if is_widened(op, ins) {
            return run_widened(self, op, ins, outs);
        }
        let first = ins.first().map_or(DType::Bool, |x| x.dtype);
        match op {
            Op::Fill { value, .. } => self.fill(*value, outs),
            Op::Random { meta, .. } => self.run_float(meta.dtype, op, ins, outs),
            Op::Copy => self.copy(ins, outs),
            Op::Cast { to } => self.cast(*to, ins, outs),
            Op::Unary(_) | Op::Affine { .. } | Op::Clamp { .. } | Op::MatMul { .. } => {
                self.run_float(first, op, ins, outs)
            }
            Op::Binary(f) => self.binary(*f, ins, outs),
            Op::Compare(f) => self.compare(*f, ins, outs),
            Op::Select => self.select(ins, outs),
            Op::Reduce { kind, axis } => self.reduce(*kind, *axis, ins, outs),
            Op::ArgMax { axis } => self.argmax(*axis, ins, outs),
            Op::Concat { axis } => self.concat(*axis, ins, outs),
            Op::Reverse { time, batch } => self.reverse(*time, *batch, ins, outs),
            Op::Gather => self.gather(ins, outs),
            Op::ScatterAdd { .. } => {
                let dtype = ins.get(1).map_or(first, |rows| rows.dtype);
                self.run_float(dtype, op, ins, outs)
            }
            Op::Fused(Fused::MaskedUpdate { time }) => self.masked_update(*time, ins, outs),
            Op::Fused(Fused::ScatterUpdate) => self.scatter_update(ins, outs),
            Op::Fused(Fused::Scan(plan)) => self.run_scan(plan, ins, outs),
            Op::Fused(fused) => match first {
                DType::F32 => self.run_fused::<f32>(fused, ins, outs),
                DType::F64 => self.run_fused::<f64>(fused, ins, outs),
                _ => compose(self, fused, ins, outs),
            },
        }
    }

    fn accumulate(
        &self,
        dst: CpuBuffer,
        at: &Layout,
        src: View<'_, CpuBuffer>,
    ) -> Result<CpuBuffer> {
        match dst.dtype() {
            DType::F32 => self.accumulate_for::<f32>(dst, at, &src),
            DType::F64 => self.accumulate_for::<f64>(dst, at, &src),
            DType::F16 | DType::Bf16 => accumulate_widened(self, dst, at, src),
            other => Err(unsupported("accumulate", other)),
        }
    }

    fn update(&self, op: &Op, updates: &mut [Update<'_, CpuBuffer>]) -> Result<()> {
        check_update(self, op, updates)?;
        let first = updates.first().and_then(|update| update.state.first());
        match (op, first.map(|(_, meta)| meta.dtype)) {
            (Op::Fused(Fused::ScatterUpdate), _) => updates
                .iter_mut()
                .try_for_each(|update| self.update_rows(update)),
            (Op::Fused(fused), Some(DType::F32)) => self.update_floats::<f32>(fused, updates),
            (Op::Fused(fused), Some(DType::F64)) => self.update_floats::<f64>(fused, updates),
            _ => update_by_run(self, op, updates),
        }
    }

    fn can_offload(&self) -> bool {
        self.offload_file().is_some()
    }

    fn swap_out(&self, buffer: CpuBuffer) -> Result<SwappedBuffer> {
        match self.offload_file() {
            Some(file) => file.write(buffer),
            None => Ok(SwappedBuffer::in_memory(buffer)),
        }
    }

    fn swap_in(&self, swapped: SwappedBuffer) -> Result<CpuBuffer> {
        swapped.read(self.pool())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Memory {
        self.pool().memory()
    }

    fn release_cached(&self) -> Result<()> {
        self.pool().release();
        Ok(())
    }

    fn compile_step(&self, step: &StepGraph) -> Result<SharedProgram, String> {
        Ok(Arc::new(compile(step)?))
    }

    fn step_cache(&self) -> Option<&StepCache> {
        Some(self.steps())
    }
}

impl Cpu {
    /// Runs an operation on floats with the kernel for the operands' type.
    fn run_float(
        &self,
        dtype: DType,
        op: &Op,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match dtype {
            DType::F32 => self.run_for::<f32>(op, ins, outs),
            DType::F64 => self.run_for::<f64>(op, ins, outs),
            other => Err(unsupported(op.name(), other)),
        }
    }

    fn run_for<T: Float>(
        &self,
        op: &Op,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match op {
            Op::Random {
                key, distribution, ..
            } => self.random::<T>(*key, *distribution, outs),
            Op::Unary(f) => self.unary::<T>(*f, ins, outs),
            Op::Affine { mul, add } => self.affine::<T>(*mul, *add, ins, outs),
            Op::Clamp { min, max } => self.clamp::<T>(*min, *max, ins, outs),
            Op::MatMul { alpha, .. } => self.matmul::<T>(*alpha, ins, outs),
            Op::ScatterAdd { .. } => self.scatter_add::<T>(ins, outs),
            // `run` matches without a wildcard and passes no other operations.
            _ => Err(Error::argument(
                op.name(),
                "operation",
                "is not an operation on floats",
            )),
        }
    }

    fn run_fused<T: Float>(
        &self,
        fused: &Fused,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        // Layers run as programs. Kernels of single steps are compiled for the usual activations.
        let gates = fused.recurrent_activation();
        let sigmoid = gates.is_none_or(|f| f == Activation::Sigmoid);
        let usual = sigmoid && fused.activation() == Some(Activation::Tanh);
        match fused {
            Fused::ActivationGrad { activation } => {
                self.activation_grad::<T>(*activation, ins, outs)
            }
            Fused::BiasActivation { activation } if activation.is_common() => {
                self.bias_activation::<T>(*activation, ins, outs)
            }
            Fused::LstmStep(gates) if usual => self.lstm_step::<T>(gates.forget_bias, ins, outs),
            Fused::LstmStepGrad(_) if usual => self.lstm_step_grad::<T>(ins, outs),
            Fused::GruGates { .. } if sigmoid => self.gru_gates::<T>(ins, outs),
            Fused::GruGatesGrad { .. } if sigmoid => self.gru_gates_grad::<T>(ins, outs),
            Fused::GruOutput { .. } if usual => self.gru_output::<T>(ins, outs),
            Fused::GruOutputGrad { .. } if usual => self.gru_output_grad::<T>(ins, outs),
            Fused::SoftmaxCrossEntropy => self.softmax_cross_entropy::<T>(ins, outs),
            Fused::SoftmaxCrossEntropyGrad => self.softmax_cross_entropy_grad::<T>(ins, outs),
            Fused::SquaredNorm => self.squared_norm::<T>(ins, outs),
            Fused::Sgd { lr } => self.sgd::<T>(*lr, ins, outs),
            Fused::Adam(step) => self.adam::<T>(step, ins, outs),
            other => compose(self, other, ins, outs),
        }
    }

    /// Runs a compiled step over all steps; all its values have the type of the state.
    fn run_scan(
        &self,
        plan: &ScanPlan,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let graph = plan.graph();
        let dtype = graph
            .states
            .iter()
            .chain(&graph.inputs)
            .next()
            .map(|m| m.dtype);
        match (plan.is_compiled(), dtype) {
            (true, Some(DType::F32)) => self.scan::<f32>(plan, ins, outs),
            (true, Some(DType::F64)) => self.scan::<f64>(plan, ins, outs),
            _ => compose(self, &Fused::Scan(plan.clone()), ins, outs),
        }
    }

    fn accumulate_for<T: Float>(
        &self,
        dst: CpuBuffer,
        at: &Layout,
        src: &Input<'_>,
    ) -> Result<CpuBuffer> {
        let (dtype, count) = (dst.dtype(), dst.count());
        let src = self.dense::<T>(src)?;
        let mut storage = unshared(self.pool(), dst, false)?;
        let to = &mut storage.elements_mut::<T>()[..count];
        if src.is_empty() {
        } else if at.is_contiguous() {
            let to = &mut to[at.offset()..][..src.len()];
            self.split(src.len(), [(to, 1)], 1, &|range, [to]| {
                for (to, from) in to.iter_mut().zip(&src[range]) {
                    *to = to.add(*from);
                }
            });
        } else {
            Walk::new(at).update(to, 0, &src, |to, from| *to = to.add(from));
        }
        Ok(CpuBuffer::new(storage, dtype, count))
    }
}
