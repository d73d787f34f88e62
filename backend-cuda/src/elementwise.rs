//! Elementwise operations.

use backend_api::{
    Activation, Binary, Buffers, Compare, DType, Dest, Dests, Layout, Meta, Result, Unary,
    accumulate_widened, rounding,
};
use cudarc::driver::{DeviceRepr, sys::CUdeviceptr};
use half::{bf16, f16};
use smallvec::smallvec;

use crate::arguments::{Args, Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input, Output, dests, operands, unshared};
use crate::codes;
use crate::device::Cuda;
use crate::kernels::Module;
use crate::launch::{unsupported, words};
use crate::strided::{Axes, Strided, broadcast};

fn kernel(name: &'static str, suffix: &'static str) -> Kernel {
    Kernel::new(Module::Elementwise, name, suffix)
}

impl Args {
    /// Pushes a constant in the kernel's element type.
    pub(crate) fn push_float(&mut self, dtype: DType, value: f64) {
        match dtype {
            DType::F32 => self.push(value as f32),
            _ => self.push(value),
        }
    }
}

impl Cuda {
    pub(crate) fn fill(&self, value: f64, outs: Dests<CudaBuffer>) -> Result<Buffers<CudaBuffer>> {
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        match output.dtype() {
            DType::F32 => self.fill_with((value as f32).to_bits(), &output)?,
            DType::F64 => self.fill_with(value.to_bits(), &output)?,
            DType::F16 => {
                self.fill_with(f16::from_f32(rounding::to_odd(value)).to_bits(), &output)?
            }
            DType::Bf16 => {
                self.fill_with(bf16::from_f32(rounding::to_odd(value)).to_bits(), &output)?
            }
            DType::I32 => self.fill_with(value as i32, &output)?,
            DType::I64 => self.fill_with(value as i64, &output)?,
            DType::U8 => self.fill_with(value as u8, &output)?,
            DType::Bool => self.fill_with(u8::from(value != 0.0), &output)?,
            other => return Err(unsupported("fill", other)),
        }
        Ok(smallvec![output.finish()])
    }

    /// Fills a result of floats or integers with zeros.
    pub(crate) fn fill_with_zeros(&self, output: &Output) -> Result<()> {
        match output.dtype().size() {
            1 => self.fill_with(0u8, output),
            2 => self.fill_with(0u16, output),
            4 => self.fill_with(0u32, output),
            _ => self.fill_with(0u64, output),
        }
    }

    fn fill_with<W: DeviceRepr + Copy>(&self, value: W, output: &Output) -> Result<()> {
        let layout = output.layout();
        let s = Strided::new(layout.shape(), [layout])?;
        let kernel = kernel("fill", words(output.dtype()));
        self.launch(
            kernel,
            Grid::Elements(s.count),
            args![value, s, output.address()],
        )
    }

    /// Queues a kernel with one operand. `args` come first, then the strides, the operand and the
    /// result.
    fn map1(
        &self,
        kernel: Kernel,
        mut args: Args,
        x: &Input<'_>,
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let s = Strided::new(x.layout.shape(), [*x.layout, output.layout()])?;
        args.push(s);
        args.push(x.buffer.address()?);
        args.push(output.address());
        self.launch(kernel, Grid::Elements(s.count), args)?;
        Ok(smallvec![output.finish()])
    }

    /// Like `map1`, with two operands that are broadcast.
    fn map2(
        &self,
        kernel: Kernel,
        mut args: Args,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [a, b] = operands(ins)?;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let shape = broadcast(&[*a.layout, *b.layout])?;
        let s = Strided::new(shape, [*a.layout, *b.layout, output.layout()])?;
        args.push(s);
        args.push(a.buffer.address()?);
        args.push(b.buffer.address()?);
        args.push(output.address());
        self.launch(kernel, Grid::Elements(s.count), args)?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn copy(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [x] = operands(ins)?;
        self.map1(kernel("copy", words(x.dtype)), Args::default(), &x, outs)
    }

    /// Copies the elements of a view to the elements of `layout` in another buffer.
    pub(crate) fn copy_view(&self, x: &Input<'_>, to: CUdeviceptr, layout: Layout) -> Result<()> {
        let s = Strided::new(x.layout.shape(), [*x.layout, layout])?;
        let args = args![s, x.buffer.address()?, to];
        self.launch(
            kernel("copy", words(x.dtype)),
            Grid::Elements(s.count),
            args,
        )
    }

    /// A buffer with the operand's elements in row-major order without gaps, and the offset of the
    /// first.
    pub(crate) fn dense(&self, x: &Input<'_>) -> Result<(CudaBuffer, usize)> {
        if x.layout.is_contiguous() {
            return Ok((x.buffer.clone(), x.layout.offset()));
        }
        let meta = Meta::new(x.layout.shape(), x.dtype);
        let mut copy = self.copy(&[*x], smallvec![Dest::New(meta)])?;
        Ok((copy.swap_remove(0), 0))
    }

    /// The address of an operand's elements in row-major order, and the buffer that must live until
    /// the work on them is queued.
    pub(crate) fn dense_address(&self, x: &Input<'_>) -> Result<(CUdeviceptr, CudaBuffer)> {
        let (buffer, offset) = self.dense(x)?;
        let address = buffer.address()? + (offset * x.dtype.size()) as u64;
        Ok((address, buffer))
    }

    pub(crate) fn cast(
        &self,
        to: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [x] = operands(ins)?;
        let code = codes::dtype(to).ok_or_else(|| unsupported("cast", to))?;
        let from = match x.dtype {
            DType::Bool => DType::U8.name(),
            other => other.name(),
        };
        self.map1(kernel("cast", from), args![code], &x, outs)
    }

    pub(crate) fn unary(
        &self,
        dtype: DType,
        f: Unary,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [x] = operands(ins)?;
        let code = codes::unary(f).ok_or_else(|| unsupported("unary", dtype))?;
        self.map1(kernel("unary", dtype.name()), args![code], &x, outs)
    }

    pub(crate) fn affine(
        &self,
        dtype: DType,
        mul: f64,
        add: f64,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [x] = operands(ins)?;
        let mut args = Args::default();
        args.push_float(dtype, mul);
        args.push_float(dtype, add);
        self.map1(kernel("affine", dtype.name()), args, &x, outs)
    }

    pub(crate) fn clamp(
        &self,
        dtype: DType,
        min: f64,
        max: f64,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [x] = operands(ins)?;
        let mut args = Args::default();
        args.push_float(dtype, min);
        args.push_float(dtype, max);
        self.map1(kernel("clamp", dtype.name()), args, &x, outs)
    }

    pub(crate) fn binary(
        &self,
        f: Binary,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let dtype = number("binary", ins)?;
        let kernel = kernel("binary", dtype.name());
        self.map2(kernel, args![codes::binary(f)], ins, outs)
    }

    pub(crate) fn compare(
        &self,
        f: Compare,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let dtype = number("compare", ins)?;
        let kernel = kernel("compare", dtype.name());
        self.map2(kernel, args![codes::compare(f)], ins, outs)
    }

    pub(crate) fn bias_activation(
        &self,
        dtype: DType,
        f: Activation,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let code = activation(dtype, f)?;
        let kernel = kernel("bias_activation", dtype.name());
        self.map2(kernel, args![code], ins, outs)
    }

    pub(crate) fn activation_grad(
        &self,
        dtype: DType,
        f: Activation,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let code = activation(dtype, f)?;
        let kernel = kernel("activation_grad", dtype.name());
        self.map2(kernel, args![code], ins, outs)
    }

    pub(crate) fn select(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [condition, a, b] = operands(ins)?;
        let shape = broadcast(&[*condition.layout, *a.layout, *b.layout])?;
        let kernel = kernel("select", words(a.dtype));
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let layouts = [*condition.layout, *a.layout, *b.layout, output.layout()];
        let s = Strided::new(shape, layouts)?;
        let args = args![
            s,
            condition.buffer.address()?,
            a.buffer.address()?,
            b.buffer.address()?,
            output.address(),
        ];
        self.launch(kernel, Grid::Elements(s.count), args)?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn masked_update(
        &self,
        time: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [lengths, new, old] = operands(ins)?;
        let shape = new.layout.shape();
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let s = Strided::walk(
            shape,
            [*lengths.layout, *new.layout, *old.layout, output.layout()].map(Axes::new),
        );
        let args = args![
            time as i64,
            is_wide(lengths.dtype),
            s,
            lengths.buffer.address()?,
            new.buffer.address()?,
            old.buffer.address()?,
            output.address(),
        ];
        let kernel = kernel("masked_update", words(new.dtype));
        self.launch(kernel, Grid::Elements(s.count), args)?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn accumulate_into(
        &self,
        dst: CudaBuffer,
        at: &Layout,
        src: &Input<'_>,
    ) -> Result<CudaBuffer> {
        let (dtype, count) = (dst.dtype(), dst.count());
        if !dtype.is_float() {
            return Err(unsupported("accumulate", dtype));
        }
        if dtype.computed_in() != dtype {
            return accumulate_widened(self, dst, at, *src);
        }
        // The source address is taken first: if the source shares the destination's buffer,
        // `unshared` copies the buffer and leaves the source unchanged.
        let from = src.buffer.address()?;
        let block = unshared(self, dst, false)?;
        let s = Strided::new(at.shape(), [*src.layout, *at])?;
        let kernel = kernel("accumulate", dtype.name());
        self.launch(
            kernel,
            Grid::Elements(s.count),
            args![s, from, block.address()],
        )?;
        Ok(CudaBuffer::new(block, dtype, count))
    }
}

/// An activation's code, or an error if there is no kernel for it.
pub(crate) fn activation(dtype: DType, f: Activation) -> Result<i32> {
    codes::activation(f).ok_or_else(|| unsupported("activation", dtype))
}

/// 1 if the integers have 8 bytes, else 0: the `wide` argument of kernels.
pub(crate) fn is_wide(dtype: DType) -> i32 {
    i32::from(dtype == DType::I64)
}

/// The operands' type if it is numeric, else an error.
pub(crate) fn number(op: &'static str, ins: &[Input<'_>]) -> Result<DType> {
    match ins.first().map(|x| x.dtype) {
        Some(dtype @ (DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::U8)) => Ok(dtype),
        other => Err(unsupported(op, other.unwrap_or(DType::Bool))),
    }
}
