//! Shared by this crate's tests: random tensors of any layout together with their elements as a
//! plain list, and iteration over indices. Shares no code with the kernels.

use backend_api::{
    Backend, DType, Dest, Dests, Layout, Meta, Op, Result, Shape, Tensor, View, compose,
};
use backend_cpu::{Cpu, CpuBuffer};

/// A small generator of its own, so that the tests do not depend on the code under test.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.word() >> 33) % n as u64) as usize
    }

    /// In `-2..2`.
    pub fn number(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64 * 4.0 - 2.0
    }

    pub fn dims(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).map(|_| self.below(6)).collect()
    }
}

/// The expected shape and elements of a tensor.
#[derive(Clone, Debug)]
pub struct Plain {
    pub dims: Vec<usize>,
    pub data: Vec<f64>,
}

impl Plain {
    pub fn count(dims: &[usize]) -> usize {
        dims.iter().product()
    }

    /// Computes each element from its index.
    pub fn build(dims: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let mut data = Vec::new();
        each_index(dims, |index| data.push(f(index)));
        Self {
            dims: dims.to_vec(),
            data,
        }
    }

    /// The element at an index, with broadcasting: axes are aligned at the end, and axes of length
    /// 1 are stretched.
    pub fn at(&self, index: &[usize]) -> f64 {
        let skip = index.len() - self.dims.len();
        let mut flat = 0;
        for (&i, &dim) in index[skip..].iter().zip(&self.dims) {
            flat = flat * dim + if dim == 1 { 0 } else { i };
        }
        self.data[flat]
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            dims: self.dims.clone(),
            data: self.data.iter().map(|&x| f(x)).collect(),
        }
    }
}

/// Calls `f` with each index of a shape, in row-major order.
pub fn each_index(dims: &[usize], mut f: impl FnMut(&[usize])) {
    if dims.contains(&0) {
        return;
    }
    let mut index = vec![0; dims.len()];
    loop {
        f(&index);
        let mut axis = dims.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

pub fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(x as f32),
        DType::F64 => x,
        DType::I32 | DType::I64 => (x * 5.0).trunc(),
        DType::U8 => (x * 5.0).trunc().abs(),
        DType::Bool => f64::from(u8::from(x > 0.0)),
        other => panic!("{other}"),
    }
}

fn upload(cpu: &Cpu, data: &[f64], dims: &[usize], dtype: DType) -> Tensor<Cpu> {
    let tensor = match dtype {
        DType::F32 => {
            let data: Vec<f32> = data.iter().map(|&x| x as f32).collect();
            Tensor::from_slice(cpu, &data, dims)
        }
        DType::F64 => Tensor::from_slice(cpu, data, dims),
        DType::I32 => {
            let data: Vec<i32> = data.iter().map(|&x| x as i32).collect();
            Tensor::from_slice(cpu, &data, dims)
        }
        DType::I64 => {
            let data: Vec<i64> = data.iter().map(|&x| x as i64).collect();
            Tensor::from_slice(cpu, &data, dims)
        }
        DType::U8 | DType::Bool => {
            let data: Vec<u8> = data.iter().map(|&x| x as u8).collect();
            let shape = Shape::new(dims).unwrap();
            Tensor::from_bytes(cpu, &data, Meta::new(shape, dtype))
        }
        other => panic!("{other}"),
    };
    tensor.unwrap()
}

pub fn tensor(cpu: &Cpu, plain: &Plain, dtype: DType) -> Tensor<Cpu> {
    upload(cpu, &plain.data, &plain.dims, dtype)
}

/// A layout of the given shape within a larger buffer, with axes in any order and slices of longer
/// axes. Also returns the number of elements of the buffer.
pub fn scattered(rng: &mut Rng, dims: &[usize]) -> (Layout, usize) {
    let rank = dims.len();
    let mut order: Vec<usize> = (0..rank).collect();
    let kind = rng.below(3);
    if kind > 0 {
        for i in (1..rank).rev() {
            order.swap(i, rng.below(i + 1));
        }
    }
    // Axis `order[i]` of the result is axis `i` of the buffer.
    let mut starts = vec![0; rank];
    let full: Vec<usize> = order
        .iter()
        .map(|&axis| {
            starts[axis] = if kind == 2 { rng.below(3) } else { 0 };
            let end = if kind == 2 { rng.below(2) } else { 0 };
            starts[axis] + dims[axis] + end
        })
        .collect();
    let mut layout = Layout::contiguous(Shape::new(&full).unwrap());
    for (i, &axis) in order.iter().enumerate() {
        layout = layout
            .slice(i, starts[axis]..starts[axis] + dims[axis])
            .unwrap();
    }
    let mut inverse = vec![0; rank];
    for (i, &axis) in order.iter().enumerate() {
        inverse[axis] = i;
    }
    (layout.permute(&inverse).unwrap(), Plain::count(&full))
}

/// A tensor of random numbers within a larger buffer, with axes in any order.
pub fn random(cpu: &Cpu, rng: &mut Rng, dims: &[usize], dtype: DType) -> (Tensor<Cpu>, Plain) {
    let (layout, count) = scattered(rng, dims);
    let buffer: Vec<f64> = (0..count).map(|_| rounded(rng.number(), dtype)).collect();
    let plain = Plain::build(dims, |index| {
        let at: usize = index.iter().zip(layout.strides()).map(|(i, s)| i * s).sum();
        buffer[layout.offset() + at]
    });
    let whole = upload(cpu, &buffer, &[count], dtype);
    (
        Tensor::from_parts(cpu, whole.into_buffer().unwrap(), layout, dtype).unwrap(),
        plain,
    )
}

/// A tensor of integers in `0..n`.
pub fn random_ids(
    cpu: &Cpu,
    rng: &mut Rng,
    dims: &[usize],
    n: usize,
    dtype: DType,
) -> (Tensor<Cpu>, Plain) {
    let plain = Plain::build(dims, |_| rng.below(n) as f64);
    (tensor(cpu, &plain, dtype), plain)
}

pub fn call(cpu: &Cpu, op: &Op, ins: &[&Tensor<Cpu>]) -> Result<Vec<Tensor<Cpu>>> {
    Ok(Tensor::call_all(cpu, op, ins)?.into_iter().collect())
}

/// Checks that a tensor has the expected elements, within a relative and absolute tolerance.
pub fn check(what: &str, found: &Tensor<Cpu>, expected: &Plain, tolerance: f64) {
    assert_eq!(found.shape().dims(), expected.dims, "{what}: shape");
    let found = match found.dtype() {
        DType::Bool => found
            .to_bytes()
            .unwrap()
            .iter()
            .map(|&b| f64::from(b))
            .collect(),
        _ => found.to_f64_vec().unwrap(),
    };
    close(what, &found, &expected.data, tolerance);
}

pub fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: elements");
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let same = f == e || (f.is_nan() && e.is_nan());
        assert!(
            same || (f - e).abs() <= tolerance * (1.0 + e.abs()),
            "{what}: element {i} is {f}, not {e}"
        );
    }
}

/// The tolerance for results of a few roundings.
pub fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 2e-6 } else { 1e-13 }
}

/// Runs an operation with results written to scattered elements of larger buffers. Checks that the
/// results equal those in new buffers, that the rest of the buffers is unchanged, and that shared
/// buffers are not modified.
pub fn check_into(cpu: &Cpu, rng: &mut Rng, op: &Op, ins: &[&Tensor<Cpu>]) {
    let expected = call(cpu, op, ins).unwrap();
    let views: Vec<View<'_, CpuBuffer>> = ins.iter().map(|t| t.view().unwrap()).collect();
    for share in [false, true] {
        let mut targets = Vec::new();
        let mut kept = Vec::new();
        let dests: Dests<CpuBuffer> = expected
            .iter()
            .map(|t| {
                let (layout, count) = scattered(rng, t.shape().dims());
                let marker = Plain {
                    dims: vec![count],
                    data: vec![1.0; count],
                };
                let buffer = tensor(cpu, &marker, t.dtype());
                if share {
                    kept.push(buffer.clone());
                }
                targets.push((layout, count, t.dtype()));
                Dest::Into(Box::new((buffer.into_buffer().unwrap(), layout)))
            })
            .collect();
        let buffers = cpu.run(op, &views, dests).unwrap();
        for ((buffer, (layout, count, dtype)), expected) in
            buffers.into_iter().zip(targets).zip(&expected)
        {
            let at = Tensor::from_parts(cpu, buffer.clone(), layout, dtype).unwrap();
            assert_eq!(
                at.to_bytes().unwrap(),
                expected.to_bytes().unwrap(),
                "{op:?}"
            );
            let flat = Layout::contiguous(Shape::new(&[count]).unwrap());
            let all = Tensor::from_parts(cpu, buffer, flat, dtype)
                .unwrap()
                .to_bytes()
                .unwrap();
            let mut covered = vec![false; count];
            each_index(layout.shape().dims(), |index| {
                let at: usize = index.iter().zip(layout.strides()).map(|(i, s)| i * s).sum();
                covered[layout.offset() + at] = true;
            });
            let marker = Plain {
                dims: vec![1],
                data: vec![1.0],
            };
            let one = tensor(cpu, &marker, dtype).to_bytes().unwrap();
            for (element, covered) in all.chunks(dtype.size()).zip(covered) {
                assert!(
                    covered || element == one,
                    "{op:?} wrote outside its destination"
                );
            }
        }
        for buffer in kept {
            let untouched = buffer.cast(DType::F64).unwrap().to_vec::<f64>().unwrap();
            assert!(
                untouched.iter().all(|&x| x == 1.0),
                "{op:?} changed a shared buffer"
            );
        }
    }
}

/// Runs the default body of a fused operation.
pub fn default_body(cpu: &Cpu, op: &Op, ins: &[&Tensor<Cpu>]) -> Vec<Tensor<Cpu>> {
    let Op::Fused(fused) = op else {
        panic!("{op:?} is not fused");
    };
    let metas: Vec<Meta> = ins.iter().map(|t| t.meta()).collect();
    let outs = op.infer(&metas).unwrap();
    let views: Vec<View<'_, CpuBuffer>> = ins.iter().map(|t| t.view().unwrap()).collect();
    // On a device without fused operations, so that those in the body are composed too.
    let plain = backend_api::Unfused(cpu.clone());
    let dests = outs.iter().map(|&m| Dest::New(m)).collect();
    let buffers = compose(&plain, fused, &views, dests).unwrap();
    buffers
        .into_iter()
        .zip(outs)
        .map(|(b, m)| Tensor::from_parts(cpu, b, Layout::contiguous(m.shape), m.dtype).unwrap())
        .collect()
}
