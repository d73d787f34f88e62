//! The reference backend, and a guide to writing a backend.
//!
//! [`Reference`] computes every operation in the simplest way: in one thread, one element after
//! the other, with the functions of the standard library. The conformance suite compares every
//! backend with it, in `f64`. This crate depends on no other backend, so that an error of a kernel
//! cannot be in the expected results too.
//!
//! ```
//! use backend_api::Tensor;
//! use reference::Reference;
//! use rnn_core::{BasicRnnCell, DynamicRnn, Module};
//!
//! # fn main() -> backend_api::Result<()> {
//! let mut cell = BasicRnnCell::new(&Reference, 1, 1)?;
//! cell.initialize(7)?;
//! let x = Tensor::from_slice(&Reference, &[0.5f32; 3], &[1, 3, 1])?;
//! let rnn = DynamicRnn::new(&cell).run(&x)?;
//!
//! let weights = cell.named_params()[0].1.to_vec::<f32>()?;
//! let mut h = 0.0f32;
//! for y in rnn.outputs.to_vec::<f32>()? {
//!     h = (weights[0] * 0.5 + weights[1] * h).tanh();
//!     assert!((y - h).abs() < 1e-6);
//! }
//! # Ok(()) }
//! ```
//!
//! # How to write a backend
//!
//! A backend is a type that implements [`Backend`]. The implementation here is in the order in
//! which a new backend can be written; the comment of each method states what the contract demands
//! of it.
//!
//! 1. **The buffer** ([`Elements`]) holds the elements, and its clones share them. It has no
//!    shape. A [`View`] adds one: it is a buffer and a [`Layout`], which states the shape and
//!    where each element is. `extent` gives the number and type of the elements.
//! 2. **`upload` and `download`** copy elements between the host and a buffer. An upload is
//!    row-major; a download reads any view.
//! 3. **`run`** executes an [`Op`]. `Tensor` has checked shapes and types before, so `run` does
//!    not check them again; it checks values, such as ids. Two kinds of operations need no code of
//!    their own:
//!    * operations on 16-bit floats: [`run_widened`] casts their operands to `f32`;
//!    * [`Op::Fused`], the steps of cells included: [`compose`] is its default body. A backend
//!      starts with the default bodies, and replaces one after the other with its own kernels.
//!
//!    The match over [`Op`] has no wildcard, so that a new operation is a compile error here.
//! 4. **`accumulate`** adds to a part of a buffer. Gradients are summed with it.
//! 5. **`swap_out` and `swap_in`** move a buffer to host memory and back.
//! 6. **`compile_step`** makes a program of the step of a cell. With the trait's own
//!    implementation there is none, and the default body runs the operations of the step one by
//!    one.
//!
//! A new backend then gets a name in `tests/src/devices.rs`, and
//! `cargo xtask conformance --device NAME` compares it with this one.

#![forbid(unsafe_code)]

mod numbers;
mod operations;

use std::sync::Arc;

use backend_api::{
    Backend, Buffers, DType, Dest, Dests, Error, Layout, Memory, Meta, Op, Result, View,
    accumulate_widened, compose, is_widened, run_widened,
};

use numbers::{float, word_of_float};
use operations::Operand;

/// The reference backend. All its values are the same device, since it has neither memory nor
/// threads of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// A buffer: one word of 64 bits for each element. The low bits of a word are those of the
/// element, the others are 0.
///
/// The width of a word does not depend on the type. Operations that only move elements therefore
/// move words of any type, and preserve every bit.
#[derive(Clone, Debug)]
pub struct Elements {
    dtype: DType,
    words: Arc<Vec<u64>>,
}

impl Backend for Reference {
    /// Clones share the elements ([`Arc`]). No operation changes elements that have another owner.
    type Buffer = Elements;

    /// Device memory is host memory, so a buffer that is swapped out stays where it is.
    type Swapped = Elements;

    /// The name appears in messages.
    fn name(&self) -> String {
        "reference".to_owned()
    }

    /// A device with memory of its own compares its identity here.
    fn same_device(&self, _other: &Self) -> bool {
        true
    }

    /// The elements have no shape, so that a [`View`] can be checked against their number alone.
    fn extent(&self, buffer: &Elements) -> Result<(usize, DType)> {
        Ok((buffer.words.len(), buffer.dtype))
    }

    /// `bytes` are the elements in row-major order, in the byte order of the host. Their number is
    /// that of `meta`.
    fn upload(&self, bytes: &[u8], meta: Meta) -> Result<Elements> {
        check_type("upload", meta.dtype)?;
        let mut words = allocate(meta)?;
        words.extend(bytes.chunks_exact(meta.dtype.size()).map(word_of_bytes));
        Ok(Elements::new(meta.dtype, words))
    }

    /// `src` may have any strides. The bytes are row-major, and `into` has room for exactly these.
    /// A device that computes asynchronously waits here, and reports the errors of the operations
    /// that computed the elements.
    fn download(&self, src: View<'_, Elements>, into: &mut [u8]) -> Result<()> {
        let size = src.dtype.size();
        for (bytes, word) in into.chunks_exact_mut(size).zip(words(&src)) {
            match size {
                1 => bytes.copy_from_slice(&(word as u8).to_ne_bytes()),
                2 => bytes.copy_from_slice(&(word as u16).to_ne_bytes()),
                4 => bytes.copy_from_slice(&(word as u32).to_ne_bytes()),
                _ => bytes.copy_from_slice(&word.to_ne_bytes()),
            }
        }
        Ok(())
    }

    /// Operands may have any strides and may share a buffer. There is one destination for each
    /// result. A destination that shares its buffer, also with an operand, must be copied before
    /// it is written.
    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Elements>],
        outs: Dests<Elements>,
    ) -> Result<Buffers<Elements>> {
        if is_widened(op, ins) {
            return run_widened(self, op, ins, outs);
        }
        if let Op::Fused(fused) = op {
            return compose(self, fused, ins, outs);
        }
        // All other operations have one result.
        let results = outs.into_iter().map(|dest| {
            let meta = match &dest {
                Dest::New(meta) => *meta,
                Dest::Into(into) => Meta::new(into.1.shape(), into.0.dtype),
            };
            check_type(op.name(), meta.dtype)?;
            let mut out = allocate(meta)?;
            compute(op, ins, meta, &mut out)?;
            Ok(write(dest, out))
        });
        results.collect()
    }

    /// Adds in place if `dst` is the only handle of its buffer. `src` may be a view of the same
    /// buffer; `Arc::make_mut` then makes a copy, since `src` holds a second handle.
    fn accumulate(
        &self,
        mut dst: Elements,
        at: &Layout,
        src: View<'_, Elements>,
    ) -> Result<Elements> {
        let dtype = dst.dtype;
        if dtype.computed_in() != dtype {
            return accumulate_widened(self, dst, at, src);
        }
        let summands = words(&src);
        let sums = Arc::make_mut(&mut dst.words);
        for (offset, summand) in offsets(at).into_iter().zip(summands) {
            let sum = float(dtype, sums[offset]) + float(dtype, summand);
            sums[offset] = word_of_float(dtype, sum);
        }
        Ok(dst)
    }

    /// Other handles of the buffer stay valid.
    fn swap_out(&self, buffer: Elements) -> Result<Elements> {
        Ok(buffer)
    }

    /// The elements are the same, bit for bit.
    fn swap_in(&self, swapped: Elements) -> Result<Elements> {
        Ok(swapped)
    }

    /// Every operation has finished when `run` returns, and has reported its errors there.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// There is no pool of memory to report on.
    fn memory(&self) -> Memory {
        Memory::default()
    }

    // `compile_step` is the trait's own: every sequence runs step by step, as the default body
    // does. So are `is_tracked`, `detach` and `segment`, which concern only the devices that
    // record operations for a gradient.
}

/// Appends the elements of the result, which has the shape and type of `meta`, to `out`.
/// [`Op::infer`] has checked the number of operands, their shapes and their types.
fn compute(op: &Op, ins: &[View<'_, Elements>], meta: Meta, out: &mut Vec<u64>) -> Result<()> {
    let read = |i: usize| Operand::new(&ins[i]);
    let stretched = |i: usize| Operand::stretched(&ins[i], meta.shape);
    match op {
        Op::Fill { value, .. } => out.resize(meta.shape.count(), word_of_float(meta.dtype, *value)),
        Op::Random {
            key, distribution, ..
        } => operations::random(*key, *distribution, meta, out),
        Op::Copy => out.extend(words(&ins[0])),
        Op::Cast { to } => operations::cast(&read(0), *to, out),
        Op::Unary(f) => operations::map(&read(0), |x| numbers::unary(*f, x), out),
        Op::Affine { mul, add } => {
            // The constants are rounded to the element type.
            let [mul, add] = [mul, add].map(|x| float(meta.dtype, word_of_float(meta.dtype, *x)));
            operations::map(&read(0), |x| x * mul + add, out);
        }
        Op::Clamp { min, max } => {
            operations::map(&read(0), |x| numbers::clamp(x, *min, *max), out);
        }
        Op::Binary(f) => operations::binary(*f, &stretched(0)?, &stretched(1)?, out),
        Op::Compare(f) => operations::compare(*f, &stretched(0)?, &stretched(1)?, out),
        Op::Select => operations::select([stretched(0)?, stretched(1)?, stretched(2)?], out),
        Op::Reduce { kind, axis } => operations::reduce(*kind, &read(0), *axis, out),
        Op::ArgMax { axis } => operations::argmax(&read(0), *axis, out),
        Op::MatMul { alpha, .. } => {
            let addend = ins.get(2).map(Operand::new);
            operations::matmul(*alpha, [&read(0), &read(1)], addend, out);
        }
        Op::Concat { axis } => {
            let parts: Vec<Operand> = ins.iter().map(Operand::new).collect();
            operations::concat(&parts, *axis, out);
        }
        Op::Reverse { time, batch } => {
            operations::reverse([*time, *batch], &read(0), &read(1), out)?;
        }
        Op::Gather => operations::gather(&read(0), &read(1), out)?,
        Op::ScatterAdd { rows } => operations::scatter_add(*rows, &read(0), &read(1), out)?,
        Op::Fused(_) => {
            let problem = "has a default body, which `run` chooses";
            return Err(Error::argument(op.name(), "operation", problem));
        }
    }
    Ok(())
}

impl Elements {
    fn new(dtype: DType, words: Vec<u64>) -> Self {
        let words = Arc::new(words);
        Self { dtype, words }
    }
}

/// Writes the elements of a result. A destination that is shared is copied first.
fn write(dest: Dest<Elements>, words: Vec<u64>) -> Elements {
    match dest {
        Dest::New(meta) => Elements::new(meta.dtype, words),
        Dest::Into(into) => {
            let (mut buffer, at) = *into;
            let all = Arc::make_mut(&mut buffer.words);
            for (offset, word) in offsets(&at).into_iter().zip(words) {
                all[offset] = word;
            }
            buffer
        }
    }
}

/// The elements of a view in row-major order.
fn words(view: &View<'_, Elements>) -> Vec<u64> {
    let all = &view.buffer.words;
    let offsets = offsets(view.layout);
    offsets.into_iter().map(|offset| all[offset]).collect()
}

/// Where the elements of a layout are in the buffer, in row-major order: the element at index `i`
/// is at `offset + sum(i[k] * strides[k])`.
fn offsets(layout: &Layout) -> Vec<usize> {
    let mut all = vec![layout.offset()];
    for (&len, &stride) in layout.shape().dims().iter().zip(layout.strides()) {
        let along = |start: usize| (0..len).map(move |i| start + i * stride);
        all = all.into_iter().flat_map(along).collect();
    }
    all
}

/// The bytes of one element as a word.
fn word_of_bytes(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        // No type has another size.
        _ => 0,
    }
}

/// Room for the elements of a tensor. A device that is out of memory returns an error and stays
/// usable.
fn allocate(meta: Meta) -> Result<Vec<u64>> {
    let mut words = Vec::new();
    let room = words.try_reserve_exact(meta.shape.count());
    room.map_err(|_| Error::OutOfMemory {
        device: "reference".into(),
        requested: meta.shape.count().saturating_mul(size_of::<u64>()),
        free: 0,
        memory: Memory::default(),
    })?;
    Ok(words)
}

/// Refuses an element type that was added to [`DType`] but not to this backend.
fn check_type(op: &'static str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F32
        | DType::F64
        | DType::F16
        | DType::Bf16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::Bool => Ok(()),
        other => {
            let expected = "the reference backend does not support it";
            Err(Error::dtype(op, "result", other, expected))
        }
    }
}

#[cfg(test)]
mod tests;
