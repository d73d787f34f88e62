//! Elementwise operations.

use std::convert::identity;

use backend_api::{
    Binary, Buffers, Compare, DType, Dests, Error, Layout, Result, Unary, with_activation,
    with_common_activation,
};
use bytemuck::Pod;

use crate::activations::value;
use crate::device::Cpu;
use crate::element::{Float, Number};
use crate::functions::{affine, clamp, with_binary, with_compare, with_unary};
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::simd::{Map1, Map2, dispatch};
use crate::storage::{CpuBuffer, Input, Output, dests, operands};
use crate::strided::{BLOCK, Stream};

/// Cost of one element, for deciding how many threads to use.
const CHEAP: usize = 1;
const COSTLY: usize = 8;

impl Cpu {
    /// `out[i] = f(x[i])`, in vectors if `T` is a float.
    fn map1<T: Number, A: Pod + Send + Sync, O: Pod + Send>(
        &self,
        x: &Input<'_>,
        outs: Dests<CpuBuffer>,
        work: usize,
        f: impl Fn(A) -> O + Copy + Sync,
    ) -> Result<Buffers<CpuBuffer>> {
        let arch = self.arch();
        self.blocks(x, outs, work, &|a, out| {
            dispatch::<T, _>(arch, Map1 { a, out, f });
        })
    }

    /// Calls `run` for blocks of the operand and the result.
    fn blocks<A: Pod + Send + Sync, O: Pod + Send>(
        &self,
        x: &Input<'_>,
        outs: Dests<CpuBuffer>,
        work: usize,
        run: &(dyn Fn(&[A], &mut [O]) + Sync),
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<O>();
        let x = Stream::new(x.buffer.elements::<A>(), x.layout);
        let block = if x.is_direct() { usize::MAX } else { BLOCK };
        self.split(out.len(), [(out, 1)], work, &|range, [out]| {
            let mut spare = [A::zeroed(); BLOCK];
            let mut start = range.start;
            for out in out.chunks_mut(block) {
                let a = x.block(start, out.len(), &mut spare);
                start += out.len();
                run(a, out);
            }
        });
        Ok([output.finish()].into_iter().collect())
    }

    /// `out[i] = f(a[i], b[i])`, both broadcast to the result's shape, in vectors of floats.
    fn map2<T: Number, O: Pod + Send>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
        f: impl Fn(T, T) -> O + Copy + Sync,
    ) -> Result<Buffers<CpuBuffer>> {
        let arch = self.arch();
        self.blocks_of_two(ins, outs, &|a, b, out| {
            dispatch::<T, _>(arch, Map2 { a, b, out, f });
        })
    }

    /// Calls `run` for blocks of two operands, broadcast to the result's shape, and of the result.
    fn blocks_of_two<A: Pod + Send + Sync, O: Pod + Send>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
        run: &(dyn Fn(&[A], &[A], &mut [O]) + Sync),
    ) -> Result<Buffers<CpuBuffer>> {
        let [a, b] = operands(ins)?;
        let shape = broadcast(&[*a.layout, *b.layout])?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<O>();
        let a = Stream::new(a.buffer.elements::<A>(), &a.layout.broadcast_to(shape)?);
        let b = Stream::new(b.buffer.elements::<A>(), &b.layout.broadcast_to(shape)?);
        let direct = a.is_direct() && b.is_direct();
        let block = if direct { usize::MAX } else { BLOCK };
        self.split(out.len(), [(out, 1)], CHEAP, &|range, [out]| {
            let mut spare = [[A::zeroed(); BLOCK]; 2];
            let [spare_a, spare_b] = &mut spare;
            let mut start = range.start;
            for out in out.chunks_mut(block) {
                let a = a.block(start, out.len(), spare_a);
                let b = b.block(start, out.len(), spare_b);
                start += out.len();
                run(a, b, out);
            }
        });
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn fill(&self, value: f64, outs: Dests<CpuBuffer>) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        match output.dtype() {
            DType::F32 => self.fill_with(&mut output, value as f32),
            DType::F64 => self.fill_with(&mut output, value),
            DType::F16 => self.fill_with(&mut output, f32_to_f16(value.to_odd())),
            DType::Bf16 => self.fill_with(&mut output, f32_to_bf16(value.to_odd())),
            DType::I32 => self.fill_with(&mut output, value as i32),
            DType::I64 => self.fill_with(&mut output, value as i64),
            DType::U8 => self.fill_with(&mut output, value as u8),
            DType::Bool => self.fill_with(&mut output, u8::from(value != 0.0)),
            other => return Err(unsupported("fill", other)),
        }
        Ok([output.finish()].into_iter().collect())
    }

    fn fill_with<T: Pod + Send + Sync>(&self, output: &mut Output, value: T) {
        let out = output.elements::<T>();
        self.split(out.len(), [(out, 1)], CHEAP, &|_, [out]| out.fill(value));
    }

    pub(crate) fn copy(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = operands(ins)?;
        match x.dtype.size() {
            1 => self.copy_words::<u8>(&x, outs),
            2 => self.copy_words::<u16>(&x, outs),
            4 => self.copy_words::<u32>(&x, outs),
            _ => self.copy_words::<u64>(&x, outs),
        }
    }

    fn copy_words<W: Pod + Send + Sync>(
        &self,
        x: &Input<'_>,
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        let x = Stream::new(x.buffer.elements::<W>(), x.layout);
        self.split(out.len(), [(out, 1)], CHEAP, &|range, [out]| {
            x.read(range.start, out);
        });
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn cast(
        &self,
        to: DType,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = operands(ins)?;
        match x.dtype {
            DType::F32 => self.cast_from(to, &x, outs, identity::<f32>),
            DType::F64 => self.cast_from(to, &x, outs, identity::<f64>),
            DType::F16 => self.cast_from(to, &x, outs, f16_to_f32),
            DType::Bf16 => self.cast_from(to, &x, outs, bf16_to_f32),
            DType::I32 => self.cast_from(to, &x, outs, identity::<i32>),
            DType::I64 => self.cast_from(to, &x, outs, identity::<i64>),
            DType::U8 | DType::Bool => self.cast_from(to, &x, outs, identity::<u8>),
            other => Err(unsupported("cast", other)),
        }
    }

    /// `number` converts an element from its representation in memory to a number.
    fn cast_from<E: Pod + Send + Sync, A: Number>(
        &self,
        to: DType,
        x: &Input<'_>,
        outs: Dests<CpuBuffer>,
        number: impl Fn(E) -> A + Copy + Sync,
    ) -> Result<Buffers<CpuBuffer>> {
        macro_rules! map {
            ($T:ty, $f:expr) => {
                self.map1::<$T, _, _>(x, outs, CHEAP, move |x: E| $f(number(x)))
            };
        }
        // In vectors if both types are floats.
        match to {
            DType::F32 => map!(A, convert::<A, f32>),
            DType::F64 => map!(A, convert::<A, f64>),
            DType::F16 => map!(A, |x: A| f32_to_f16(x.to_odd())),
            DType::Bf16 => map!(A, |x: A| f32_to_bf16(x.to_odd())),
            DType::I32 => map!(i32, convert::<A, i32>),
            DType::I64 => map!(i64, convert::<A, i64>),
            DType::U8 => map!(u8, convert::<A, u8>),
            DType::Bool => map!(u8, |x| u8::from(x != A::ZERO)),
            other => Err(unsupported("cast", other)),
        }
    }

    pub(crate) fn unary<T: Float>(
        &self,
        f: Unary,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = &operands(ins)?;
        let work = match f {
            Unary::Exp | Unary::Log | Unary::Sin | Unary::Cos | Unary::Activation(_) => COSTLY,
            _ => CHEAP,
        };
        with_unary!(
            f,
            T,
            function => self.map1::<T, _, _>(x, outs, work, function),
            // Only the common activations are compiled to vector loops.
            Unary::Activation(f) => with_common_activation!(
                f,
                F => self.map1::<T, _, _>(x, outs, work, value::<F, T>),
                else {
                    let value: fn(T) -> T = with_activation!(f, F => value::<F, T>);
                    self.map1::<T, _, _>(x, outs, work, value)
                }
            )
        )
    }

    pub(crate) fn affine<T: Float>(
        &self,
        mul: f64,
        add: f64,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = &operands(ins)?;
        self.map1::<T, _, _>(x, outs, CHEAP, affine::<T>(mul, add))
    }

    pub(crate) fn clamp<T: Float>(
        &self,
        min: f64,
        max: f64,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = &operands(ins)?;
        self.map1::<T, _, _>(x, outs, CHEAP, clamp::<T>(min, max))
    }

    pub(crate) fn binary(
        &self,
        f: Binary,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.first().map(|a| a.dtype) {
            Some(DType::F32) => self.binary_of::<f32>(f, ins, outs),
            Some(DType::F64) => self.binary_of::<f64>(f, ins, outs),
            Some(DType::I32) => self.binary_of::<i32>(f, ins, outs),
            Some(DType::I64) => self.binary_of::<i64>(f, ins, outs),
            Some(DType::U8) => self.binary_of::<u8>(f, ins, outs),
            other => Err(unsupported("binary", other.unwrap_or(DType::Bool))),
        }
    }

    fn binary_of<T: Number>(
        &self,
        f: Binary,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        with_binary!(f, T, function => self.map2::<T, T>(ins, outs, function))
    }

    pub(crate) fn compare(
        &self,
        f: Compare,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.first().map(|a| a.dtype) {
            Some(DType::F32) => self.compare_of::<f32>(f, ins, outs),
            Some(DType::F64) => self.compare_of::<f64>(f, ins, outs),
            Some(DType::I32) => self.compare_of::<i32>(f, ins, outs),
            Some(DType::I64) => self.compare_of::<i64>(f, ins, outs),
            Some(DType::U8) => self.compare_of::<u8>(f, ins, outs),
            other => Err(unsupported("compare", other.unwrap_or(DType::Bool))),
        }
    }

    fn compare_of<T: Number>(
        &self,
        f: Compare,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        with_compare!(f, T, holds => {
            self.map2::<T, u8>(ins, outs, move |a, b| u8::from(holds(a, b)))
        })
    }

    pub(crate) fn select(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        match ins.get(1).map_or(1, |a| a.dtype.size()) {
            1 => self.select_words::<u8>(ins, outs),
            2 => self.select_words::<u16>(ins, outs),
            4 => self.select_words::<u32>(ins, outs),
            _ => self.select_words::<u64>(ins, outs),
        }
    }

    fn select_words<W: Pod + Send + Sync>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [condition, a, b] = operands(ins)?;
        let shape = broadcast(&[*condition.layout, *a.layout, *b.layout])?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<W>();
        let condition = Stream::new(
            condition.buffer.elements::<u8>(),
            &condition.layout.broadcast_to(shape)?,
        );
        let a = Stream::new(a.buffer.elements::<W>(), &a.layout.broadcast_to(shape)?);
        let b = Stream::new(b.buffer.elements::<W>(), &b.layout.broadcast_to(shape)?);
        self.split(out.len(), [(out, 1)], CHEAP, &|range, [out]| {
            let mut spare_condition = [0; BLOCK];
            let mut spare = [[W::zeroed(); BLOCK]; 2];
            let [spare_a, spare_b] = &mut spare;
            let mut start = range.start;
            for out in out.chunks_mut(BLOCK) {
                let condition = condition.block(start, out.len(), &mut spare_condition);
                let a = a.block(start, out.len(), spare_a);
                let b = b.block(start, out.len(), spare_b);
                start += out.len();
                for (((out, &condition), &a), &b) in out.iter_mut().zip(condition).zip(a).zip(b) {
                    *out = if condition != 0 { a } else { b };
                }
            }
        });
        Ok([output.finish()].into_iter().collect())
    }
}

/// The common shape of the operands; [`Op::infer`](backend_api::Op::infer) has checked that there
/// is one.
fn broadcast(layouts: &[Layout]) -> Result<backend_api::Shape> {
    let mut shape = backend_api::Shape::SCALAR;
    for layout in layouts {
        shape = shape.broadcast(&layout.shape()).ok_or_else(|| {
            Error::shape(
                "run",
                "operand",
                layout.shape(),
                format!("the other operands are {shape}"),
            )
        })?;
    }
    Ok(shape)
}

pub(crate) fn unsupported(op: &'static str, dtype: DType) -> Error {
    Error::dtype(op, "operand", dtype, "the CPU backend does not support it")
}

#[inline(always)]
fn convert<A: Number, B: Number>(x: A) -> B {
    if A::IS_FLOAT {
        B::from_f64(x.to_f64())
    } else {
        B::from_i64(x.to_i64())
    }
}
