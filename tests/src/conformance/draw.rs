//! Operands: drawn on the host from the seed, so that every device gets the same numbers, and
//! stored in every layout that a view can have.

use std::fmt;

use backend_api::{Backend, DType, Layout, Meta, Result, Shape, Tensor, philox};
use half::{bf16, f16};

/// The float types in which networks are compared.
pub(super) const PRECISE: &[DType] = &[DType::F32, DType::F64];
/// All float types.
pub(super) const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16, DType::Bf16];
/// All numeric types.
pub(super) const NUMBERS: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::Bf16,
    DType::I32,
    DType::I64,
    DType::U8,
];
/// Every type.
pub(super) const ALL: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::Bf16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::Bool,
];

/// The numbers to draw.
#[derive(Clone, Debug)]
pub(super) enum Fill {
    /// From an interval. Integers are whole numbers from the interval, bytes their absolute values;
    /// booleans are drawn with equal probability.
    Range(f64, f64),
    /// Whole numbers in `0..n`.
    Below(usize),
    /// Whole numbers in `-2..=2`, of which many are equal.
    Few,
    /// Odd multiples of 1/16 in `-4..4`. Their quotients with [`Eighths`](Self::Eighths) are never
    /// whole numbers.
    OddSixteenths,
    /// Multiples of 1/8 in `-2..2` other than 0.
    Eighths,
    /// These numbers, repeated.
    These(Vec<f64>),
}

impl Fill {
    /// Numbers around 0.
    pub(super) const SYMMETRIC: Self = Self::Range(-2.0, 2.0);

    /// The number for the element at an index, from a uniform number.
    fn number(&self, unit: f64, place: usize) -> f64 {
        let below = |n: f64| (unit * n).floor();
        match self {
            Self::Range(low, high) => low + (high - low) * unit,
            Self::Below(n) => below(*n as f64),
            Self::Few => below(5.0) - 2.0,
            Self::OddSixteenths => (2.0 * below(64.0) - 63.0) / 16.0,
            Self::Eighths => {
                let eighths = below(30.0) - 15.0;
                let past_zero = if eighths < 0.0 { 0.0 } else { 1.0 };
                (eighths + past_zero) / 8.0
            }
            Self::These(all) => all.get(place % all.len().max(1)).copied().unwrap_or(0.0),
        }
    }
}

/// The layout of elements in their buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrange {
    /// Row-major, filling the buffer.
    Whole,
    /// Row-major, starting at the fourth element of a longer buffer, which is not aligned to a
    /// vector.
    Offset,
    /// The last axis outermost.
    Turned,
    /// The first axis innermost, the others in order.
    Rotated,
    /// A slice of every axis.
    Cut,
    /// A slice of every axis, with the last axis outermost.
    TurnedCut,
    /// Every other axis repeats one element: stride 0, as decorators use it.
    Stretched,
}

impl Arrange {
    /// The layout for a shape, and the length of its buffer.
    pub(super) fn layout(self, dims: &[usize]) -> Result<(Layout, usize)> {
        let rank = dims.len();
        let stored = |dims: &[usize], margin: usize| -> Result<(Layout, usize)> {
            let full: Vec<usize> = dims.iter().map(|d| d + 2 * margin).collect();
            let shape = Shape::new(&full)?;
            let mut layout = Layout::contiguous(shape);
            for (axis, &len) in dims.iter().enumerate() {
                layout = layout.slice(axis, margin..margin + len)?;
            }
            Ok((layout, shape.count()))
        };
        let turned = |order: &[usize], margin: usize| -> Result<(Layout, usize)> {
            let dims: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
            let (layout, count) = stored(&dims, margin)?;
            let mut back = vec![0; rank];
            for (i, &axis) in order.iter().enumerate() {
                back[axis] = i;
            }
            Ok((layout.permute(&back)?, count))
        };
        let last_first: Vec<usize> = (0..rank).rev().collect();
        match self {
            Self::Whole => stored(dims, 0),
            Self::Offset => {
                let shape = Shape::new(dims)?;
                let count = shape.count() + 5;
                let flat = Layout::contiguous(Shape::new(&[count])?).slice(0, 3..count - 2)?;
                Ok((flat.reshape(shape).unwrap_or(flat), count))
            }
            Self::Turned => turned(&last_first, 0),
            Self::Rotated => turned(&rotated(rank), 0),
            Self::Cut => stored(dims, 1),
            Self::TurnedCut => turned(&last_first, 1),
            Self::Stretched => {
                let narrow =
                    |(axis, &len): (usize, &usize)| if axis % 2 == 0 { len } else { len.min(1) };
                let narrow: Vec<usize> = dims.iter().enumerate().map(narrow).collect();
                let (layout, count) = stored(&narrow, 0)?;
                Ok((layout.broadcast_to(Shape::new(dims)?)?, count))
            }
        }
    }
}

/// The axis order in which the first axis comes last.
fn rotated(rank: usize) -> Vec<usize> {
    (0..rank).map(|axis| (axis + 1) % rank).collect()
}

impl fmt::Display for Arrange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "",
            Self::Offset => " at an offset",
            Self::Turned => " turned",
            Self::Rotated => " rotated",
            Self::Cut => " cut",
            Self::TurnedCut => " turned and cut",
            Self::Stretched => " stretched",
        })
    }
}

/// The buffer offsets of a layout's elements in row-major order.
pub(super) fn places(layout: &Layout) -> Vec<usize> {
    let mut all = vec![layout.offset()];
    for (&len, &stride) in layout.shape().dims().iter().zip(layout.strides()) {
        let mut next = Vec::with_capacity(all.len() * len);
        for start in all {
            for i in 0..len {
                next.push(start + i * stride);
            }
        }
        all = next;
    }
    all
}

/// The source of a case's numbers: a function of the case's name and the seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    key: u64,
    /// The element type of the case, to which numbers are rounded.
    dtype: DType,
    /// Whether the numbers are for the reference: widened, and in contiguous tensors.
    reference: bool,
}

impl Draw {
    /// The source of a case's numbers.
    pub(super) fn new(name: &str, dtype: DType, seed: u64) -> Self {
        Self {
            key: philox::derive(seed, philox::label(name)),
            dtype,
            reference: false,
        }
    }

    /// The same numbers for the reference.
    pub(super) fn reference(self) -> Self {
        Self {
            reference: true,
            ..self
        }
    }

    /// The same source for another element type.
    pub(super) fn of(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The type to compute in: the case's type, or `f64` for the reference of a float type.
    pub(super) fn dtype(&self) -> DType {
        if self.reference && self.dtype.is_float() {
            DType::F64
        } else {
            self.dtype
        }
    }

    /// The numbers of a tensor, rounded to the case's type.
    fn numbers(&self, label: &str, count: usize, fill: &Fill) -> Vec<f64> {
        let mut state = philox::derive(self.key, philox::label(label));
        (0..count)
            .map(|place| {
                let unit = (splitmix(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
                rounded(fill, unit, place, self.dtype)
            })
            .collect()
    }

    /// A contiguous tensor.
    pub(super) fn tensor<B: Backend>(
        &self,
        device: &B,
        label: &str,
        dims: &[usize],
        fill: &Fill,
    ) -> Result<Tensor<B>> {
        self.arranged(device, label, dims, fill, Arrange::Whole)
    }

    /// A tensor in a layout. The other elements of the buffer, which must have no effect, are NaN
    /// or an invalid id.
    pub(super) fn arranged<B: Backend>(
        &self,
        device: &B,
        label: &str,
        dims: &[usize],
        fill: &Fill,
        at: Arrange,
    ) -> Result<Tensor<B>> {
        let (layout, len) = at.layout(dims)?;
        let mut numbers = self.numbers(label, layout.shape().count(), fill);
        if at == Arrange::Whole {
            return upload(device, &numbers, dims, self.dtype());
        }
        let places = places(&layout);
        let gap = if self.dtype.is_float() {
            f64::NAN
        } else {
            77.0
        };
        let mut buffer = vec![gap; len];
        // With stride 0 offsets repeat; writing in reverse order lets the first number win.
        for (&place, &number) in places.iter().zip(&numbers).rev() {
            buffer[place] = number;
        }
        if self.reference {
            for (&place, number) in places.iter().zip(&mut numbers) {
                *number = buffer[place];
            }
            return upload(device, &numbers, dims, self.dtype());
        }
        let whole = upload(device, &buffer, &[len], self.dtype)?;
        let buffer = whole.into_buffer()?;
        Tensor::from_parts(device, buffer, layout, self.dtype)
    }
}

/// The next number of SplitMix64 (Steele et al. 2014), a random generator that is fast in
/// unoptimised builds.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// A number rounded to a type.
fn rounded(fill: &Fill, unit: f64, place: usize, dtype: DType) -> f64 {
    let x = fill.number(unit, place);
    match (dtype, fill) {
        (DType::F64, _) => x,
        (DType::F32, _) => f64::from(x as f32),
        (DType::F16, _) => f64::from(f16::from_f64(x)),
        (DType::Bf16, _) => f64::from(bf16::from_f64(x)),
        (DType::U8, _) => x.abs().trunc(),
        (DType::Bool, Fill::Range(..)) => f64::from(u8::from(unit < 0.5)),
        (DType::Bool, _) => f64::from(u8::from(x != 0.0)),
        _ => x.trunc(),
    }
}

/// Uploads numbers as a tensor of a type that represents them.
pub(super) fn upload<B: Backend>(
    device: &B,
    numbers: &[f64],
    dims: &[usize],
    dtype: DType,
) -> Result<Tensor<B>> {
    fn each<T>(numbers: &[f64], as_type: impl Fn(f64) -> T) -> Vec<T> {
        numbers.iter().map(|&x| as_type(x)).collect()
    }
    match dtype {
        DType::F32 => Tensor::from_slice(device, &each(numbers, |x| x as f32), dims),
        DType::F64 => Tensor::from_slice(device, numbers, dims),
        DType::F16 => Tensor::from_slice(device, &each(numbers, f16::from_f64), dims),
        DType::Bf16 => Tensor::from_slice(device, &each(numbers, bf16::from_f64), dims),
        DType::I32 => Tensor::from_slice(device, &each(numbers, |x| x as i32), dims),
        DType::I64 => Tensor::from_slice(device, &each(numbers, |x| x as i64), dims),
        DType::Bool => {
            let meta = Meta::new(Shape::new(dims)?, dtype);
            Tensor::from_bytes(device, &each(numbers, |x| u8::from(x != 0.0)), meta)
        }
        _ => Tensor::from_slice(device, &each(numbers, |x| x as u8), dims),
    }
}
