//! Single steps of the LSTM and the GRU.

use backend_api::{
    Activation, Buffers, DType, Dest, Dests, Layout, LstmGates, Meta, Result, Shape,
};
use cudarc::driver::{DeviceRepr, sys::CUdeviceptr};

use crate::arguments::{Args, Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::device::Cuda;
use crate::elementwise::activation;
use crate::kernels::Module;
use crate::pool::Block;

/// A matrix whose rows are any distance apart. Mirrors `Rows` in `gates.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Rows {
    first: CUdeviceptr,
    stride: i64,
}

// SAFETY: plain numbers in C layout, as on the device.
unsafe impl DeviceRepr for Rows {}

impl Rows {
    /// The rows of a matrix if the elements of each row are adjacent.
    fn of(address: CUdeviceptr, layout: &Layout, dtype: DType) -> Option<Self> {
        let strides = layout.strides();
        let together = layout.shape()[1] == 1 || strides[1] == 1;
        together.then(|| Self {
            first: address + (layout.offset() * dtype.size()) as u64,
            stride: strides[0] as i64,
        })
    }
}

/// A result that a kernel writes row by row.
struct Result2 {
    output: Output,
    rows: Rows,
    /// A dense buffer that the kernel writes instead if the elements of the result's rows have
    /// gaps.
    aside: Option<Block>,
}

impl Cuda {
    /// An operand's rows, and the buffer that must live until the kernel is queued.
    fn rows(&self, x: &Input<'_>) -> Result<(Rows, CudaBuffer)> {
        if let Some(rows) = Rows::of(x.buffer.address()?, x.layout, x.dtype) {
            return Ok((rows, x.buffer.clone()));
        }
        let (first, buffer) = self.dense_address(x)?;
        let stride = x.layout.shape()[1] as i64;
        Ok((Rows { first, stride }, buffer))
    }

    fn result_rows(&self, dest: Dest<CudaBuffer>) -> Result<Result2> {
        let output = Output::new(self, dest)?;
        let (layout, dtype) = (output.layout(), output.dtype());
        if let Some(rows) = Rows::of(output.address(), &layout, dtype) {
            return Ok(Result2 {
                output,
                rows,
                aside: None,
            });
        }
        let block = self.pool().take(Meta::new(layout.shape(), dtype).bytes())?;
        let rows = Rows {
            first: block.address(),
            stride: layout.shape()[1] as i64,
        };
        Ok(Result2 {
            output,
            rows,
            aside: Some(block),
        })
    }

    fn finish_rows(&self, result: Result2) -> Result<CudaBuffer> {
        let Result2 { output, aside, .. } = result;
        if let Some(block) = aside {
            let layout = output.layout();
            let count = layout.shape().count();
            let aside = CudaBuffer::new(block, output.dtype(), count);
            let dense = Layout::contiguous(layout.shape());
            self.copy_view(&aside.view(&dense), output.address(), layout)?;
        }
        Ok(output.finish())
    }

    /// Queues a kernel of `gates.cu`. Its arguments are the sizes of `state`, the constants, the
    /// operands and the results.
    fn gates<const I: usize, const O: usize>(
        &self,
        name: &'static str,
        dtype: DType,
        state: Shape,
        constants: impl FnOnce(&mut Args),
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let ins: [Input<'_>; I] = operands(ins)?;
        let outs: [_; O] = dests(outs)?;
        let mut held = Vec::with_capacity(I);
        let mut args = args![state[0] as i64, state[1] as i64];
        constants(&mut args);
        for x in &ins {
            let (rows, buffer) = self.rows(x)?;
            args.push(rows);
            held.push(buffer);
        }
        let mut results = Vec::with_capacity(O);
        for dest in outs {
            let result = self.result_rows(dest)?;
            args.push(result.rows);
            results.push(result);
        }
        let kernel = Kernel::new(Module::Gates, name, dtype.name());
        self.launch(kernel, Grid::Elements(state.count() as i64), args)?;
        results.into_iter().map(|r| self.finish_rows(r)).collect()
    }

    pub(crate) fn lstm_step(
        &self,
        dtype: DType,
        gates: &LstmGates,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let code = activation(dtype, gates.activation)?;
        let constants = |args: &mut Args| {
            args.push(code);
            args.push_float(dtype, gates.forget_bias);
        };
        let state = ins[1].layout.shape();
        self.gates::<2, 3>("lstm_step", dtype, state, constants, ins, outs)
    }

    pub(crate) fn lstm_step_grad(
        &self,
        dtype: DType,
        gates: &LstmGates,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let code = activation(dtype, gates.activation)?;
        let state = ins[1].layout.shape();
        self.gates::<5, 2>("lstm_step_grad", dtype, state, |a| a.push(code), ins, outs)
    }

    pub(crate) fn gru_gates(
        &self,
        dtype: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let state = ins[1].layout.shape();
        self.gates::<2, 3>("gru_gates", dtype, state, |_| {}, ins, outs)
    }

    pub(crate) fn gru_gates_grad(
        &self,
        dtype: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let state = ins[2].layout.shape();
        self.gates::<5, 2>("gru_gates_grad", dtype, state, |_| {}, ins, outs)
    }

    pub(crate) fn gru_output(
        &self,
        dtype: DType,
        f: Activation,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let code = activation(dtype, f)?;
        let state = ins[2].layout.shape();
        self.gates::<3, 2>("gru_output", dtype, state, |a| a.push(code), ins, outs)
    }

    pub(crate) fn gru_output_grad(
        &self,
        dtype: DType,
        f: Activation,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let code = activation(dtype, f)?;
        let state = ins[2].layout.shape();
        self.gates::<4, 3>("gru_output_grad", dtype, state, |a| a.push(code), ins, outs)
    }
}
