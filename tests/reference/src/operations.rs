//! The operations, over operands in row-major order.
//!
//! Each function appends the words of the result's elements to `out`, in row-major order.

use backend_api::{
    Binary, Compare, DType, Distribution, Error, Layout, Meta, Reduce, Result, Shape, View, philox,
};

use super::numbers::{
    binary_floats, binary_ints, float, holds, int, is_nan, larger, word_of_float, word_of_int,
};
use super::{Elements, words};

/// An operand without its strides.
pub(super) struct Operand {
    shape: Shape,
    dtype: DType,
    words: Vec<u64>,
}

impl Operand {
    pub(super) fn new(view: &View<'_, Elements>) -> Self {
        Self {
            shape: view.layout.shape(),
            dtype: view.dtype,
            words: words(view),
        }
    }

    /// The operand of an element-wise operation with a result of this shape.
    pub(super) fn stretched(view: &View<'_, Elements>, shape: Shape) -> Result<Self> {
        let layout = view.layout.broadcast_to(shape)?;
        let layout = &layout;
        Ok(Self::new(&View { layout, ..*view }))
    }

    fn floats(&self) -> Vec<f64> {
        self.words.iter().map(|&x| float(self.dtype, x)).collect()
    }

    fn ints(&self) -> Vec<i64> {
        self.words.iter().map(|&x| int(self.dtype, x)).collect()
    }

    /// The length of an axis, and how many elements there are before and within one of its
    /// indices: the shape as `[outer, len, inner]`.
    fn around(&self, axis: usize) -> [usize; 3] {
        let dims = self.shape.dims();
        let count = |dims: &[usize]| dims.iter().product();
        [count(&dims[..axis]), dims[axis], count(&dims[axis + 1..])]
    }
}

/// Numbers that are a function of the key and the index alone. `run_widened` has left only `f32`
/// and `f64`.
pub(super) fn random(key: u64, distribution: Distribution, meta: Meta, out: &mut Vec<u64>) {
    let rounded = |x: f64| float(meta.dtype, word_of_float(meta.dtype, x));
    for i in 0..meta.shape.count() {
        let words = philox::block(key, i as u64 / 4);
        let x = match distribution {
            Distribution::Uniform { low, high } => {
                let unit = f64::from(philox::unit(words[i % 4]));
                let x = rounded(low + (high - low) * unit);
                // Rounding may reach the upper end, which is excluded.
                if x >= high && low < high {
                    below(high, meta.dtype)
                } else {
                    x
                }
            }
            Distribution::Normal { mean, std } => {
                // The first two words give the first two elements, the others the other two.
                let first = i % 4 / 2 * 2;
                let pair = philox::normal_pair(words[first], words[first + 1]);
                mean + std * pair[i % 2]
            }
        };
        out.push(word_of_float(meta.dtype, x));
    }
}

/// The largest number of a type below a limit.
fn below(limit: f64, dtype: DType) -> f64 {
    if dtype == DType::F64 {
        return limit.next_down();
    }
    let near = limit as f32;
    let near = if f64::from(near) < limit {
        near
    } else {
        near.next_down()
    };
    near.into()
}

pub(super) fn cast(x: &Operand, to: DType, out: &mut Vec<u64>) {
    if x.dtype.is_float() {
        out.extend(x.floats().into_iter().map(|x| word_of_float(to, x)));
    } else {
        out.extend(x.ints().into_iter().map(|x| word_of_int(to, x)));
    }
}

pub(super) fn map(x: &Operand, f: impl Fn(f64) -> f64, out: &mut Vec<u64>) {
    out.extend(x.floats().into_iter().map(|y| word_of_float(x.dtype, f(y))));
}

pub(super) fn binary(f: Binary, a: &Operand, b: &Operand, out: &mut Vec<u64>) {
    if a.dtype.is_float() {
        let pairs = a.floats().into_iter().zip(b.floats());
        out.extend(pairs.map(|(x, y)| word_of_float(a.dtype, binary_floats(f, x, y))));
    } else {
        let pairs = a.ints().into_iter().zip(b.ints());
        out.extend(pairs.map(|(x, y)| word_of_int(a.dtype, binary_ints(f, x, y))));
    }
}

pub(super) fn compare(f: Compare, a: &Operand, b: &Operand, out: &mut Vec<u64>) {
    if a.dtype.is_float() {
        let pairs = a.floats().into_iter().zip(b.floats());
        out.extend(pairs.map(|(x, y)| u64::from(holds(f, x, y))));
    } else {
        let pairs = a.ints().into_iter().zip(b.ints());
        out.extend(pairs.map(|(x, y)| u64::from(holds(f, x, y))));
    }
}

pub(super) fn select([condition, a, b]: [Operand; 3], out: &mut Vec<u64>) {
    let pairs = a.words.into_iter().zip(b.words);
    let chosen = condition.words.into_iter().zip(pairs);
    out.extend(chosen.map(|(condition, (a, b))| if condition != 0 { a } else { b }));
}

/// The elements along an axis, for each element of the result in row-major order.
fn lines<T: Copy>(all: &[T], [outer, len, inner]: [usize; 3]) -> Vec<Vec<T>> {
    let starts = (0..outer).flat_map(|o| (0..inner).map(move |i| o * len * inner + i));
    let line = |start: usize| (0..len).map(|k| all[start + k * inner]).collect();
    starts.map(line).collect()
}

pub(super) fn reduce(kind: Reduce, x: &Operand, axis: usize, out: &mut Vec<u64>) {
    if x.dtype.is_float() {
        for line in lines(&x.floats(), x.around(axis)) {
            let result = match kind {
                Reduce::Sum => line.into_iter().fold(0.0, |sum, y| sum + y),
                Reduce::Max => line.into_iter().fold(f64::NEG_INFINITY, larger),
            };
            out.push(word_of_float(x.dtype, result));
        }
    } else {
        for line in lines(&x.ints(), x.around(axis)) {
            let result = match kind {
                Reduce::Sum => line.into_iter().fold(0, i64::wrapping_add),
                Reduce::Max => line.into_iter().fold(i64::MIN, larger),
            };
            out.push(word_of_int(x.dtype, result));
        }
    }
}

pub(super) fn argmax(x: &Operand, axis: usize, out: &mut Vec<u64>) {
    if x.dtype.is_float() {
        let lines = lines(&x.floats(), x.around(axis));
        out.extend(lines.iter().map(|line| first_largest(line)));
    } else {
        let lines = lines(&x.ints(), x.around(axis));
        out.extend(lines.iter().map(|line| first_largest(line)));
    }
}

/// The index of the first of the largest numbers. A NaN counts as smaller than any number.
fn first_largest<T: Copy + PartialOrd>(line: &[T]) -> u64 {
    let mut best = 0;
    for (i, &x) in line.iter().enumerate() {
        if x > line[best] || is_nan(line[best]) && !is_nan(x) {
            best = i;
        }
    }
    best as u64
}

/// `alpha a b + c`, without `c` if there is none. The sums are in `f64`, in the order of the inner
/// dimension.
pub(super) fn matmul(
    alpha: f64,
    [a, b]: [&Operand; 2],
    addend: Option<Operand>,
    out: &mut Vec<u64>,
) {
    let [matrices, rows, depth] = a.around(a.shape.rank() - 2);
    let [_, _, columns] = b.around(b.shape.rank() - 2);
    let dtype = a.dtype;
    let shared = b.shape.rank() == 2;
    let (a, b) = (a.floats(), b.floats());
    let mut sums = Vec::new();
    for matrix in 0..matrices {
        let b = &b[if shared { 0 } else { matrix * depth * columns }..];
        for row in 0..rows {
            let a = &a[(matrix * rows + row) * depth..][..depth];
            let first = sums.len();
            sums.resize(first + columns, 0.0);
            for (k, x) in a.iter().enumerate() {
                let b = &b[k * columns..][..columns];
                for (sum, y) in sums[first..].iter_mut().zip(b) {
                    *sum += x * y;
                }
            }
        }
    }
    match addend {
        Some(addend) => {
            let pairs = sums.into_iter().zip(addend.floats());
            out.extend(pairs.map(|(sum, c)| word_of_float(dtype, alpha * sum + c)));
        }
        None => out.extend(
            sums.into_iter()
                .map(|sum| word_of_float(dtype, alpha * sum)),
        ),
    }
}

pub(super) fn concat(parts: &[Operand], axis: usize, out: &mut Vec<u64>) {
    let [outer, ..] = parts[0].around(axis);
    for o in 0..outer {
        for part in parts {
            let [_, len, inner] = part.around(axis);
            out.extend_from_slice(&part.words[o * len * inner..][..len * inner]);
        }
    }
}

pub(super) fn reverse(
    [time, batch]: [usize; 2],
    x: &Operand,
    lengths: &Operand,
    out: &mut Vec<u64>,
) -> Result<()> {
    let steps = x.shape[time];
    let lengths = indices("reverse", "lengths", lengths, steps + 1)?;
    let layout = Layout::contiguous(x.shape);
    let strides = layout.strides();
    for i in 0..x.words.len() {
        let t = i / strides[time] % steps;
        let len = lengths[i / strides[batch] % lengths.len()];
        let from = if t < len { len - 1 - t } else { t };
        out.push(x.words[i - t * strides[time] + from * strides[time]]);
    }
    Ok(())
}

pub(super) fn gather(table: &Operand, ids: &Operand, out: &mut Vec<u64>) -> Result<()> {
    let [_, rows, width] = table.around(0);
    for id in indices("gather", "ids", ids, rows)? {
        out.extend_from_slice(&table.words[id * width..][..width]);
    }
    Ok(())
}

pub(super) fn scatter_add(
    rows: usize,
    ids: &Operand,
    values: &Operand,
    out: &mut Vec<u64>,
) -> Result<()> {
    let width = values.shape.dims()[ids.shape.rank()..].iter().product();
    let mut sums = vec![0.0; rows * width];
    let numbers = values.floats();
    for (i, id) in indices("scatter_add", "ids", ids, rows)?
        .into_iter()
        .enumerate()
    {
        for k in 0..width {
            sums[id * width + k] += numbers[i * width + k];
        }
    }
    out.extend(sums.into_iter().map(|sum| word_of_float(values.dtype, sum)));
    Ok(())
}

/// The elements of an operand as indices in `0..limit`. One outside is an error.
fn indices(
    op: &'static str,
    arg: &'static str,
    operand: &Operand,
    limit: usize,
) -> Result<Vec<usize>> {
    let check = |(i, value): (usize, i64)| match usize::try_from(value) {
        Ok(index) if index < limit => Ok(index),
        _ => Err(Error::out_of_range(op, arg, i, value, limit as i64)),
    };
    operand.ints().into_iter().enumerate().map(check).collect()
}
