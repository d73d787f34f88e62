//! The elements as numbers, and the functions of one and two numbers.
//!
//! Floats of every type are computed in `f64`, and integers in `i64`. A result is rounded once,
//! when it becomes a word again.

use backend_api::{Activation, Binary, Compare, DType, Unary};
use half::{bf16, f16};

/// The number in a word of a float type.
pub(super) fn float(dtype: DType, word: u64) -> f64 {
    match dtype {
        DType::F16 => f16::from_bits(word as u16).into(),
        DType::Bf16 => bf16::from_bits(word as u16).into(),
        DType::F32 => f32::from_bits(word as u32).into(),
        _ => f64::from_bits(word),
    }
}

/// The number in a word of an integer type or of `bool`.
pub(super) fn int(dtype: DType, word: u64) -> i64 {
    match dtype {
        DType::I32 => i64::from(word as u32 as i32),
        DType::I64 => word as i64,
        // `u8` and `bool` are not negative.
        _ => (word as u8).into(),
    }
}

/// A float in any type. A cast to an integer rounds toward zero and saturates, and NaN becomes 0.
pub(super) fn word_of_float(dtype: DType, x: f64) -> u64 {
    match dtype {
        // The number is one of the type, so the conversion is exact.
        DType::F16 => f16::from_f64(nearest(x, 10, -14)).to_bits().into(),
        DType::Bf16 => bf16::from_f64(nearest(x, 7, -126)).to_bits().into(),
        DType::F32 => (x as f32).to_bits().into(),
        DType::F64 => x.to_bits(),
        DType::I32 => u64::from(x as i32 as u32),
        DType::I64 => x as i64 as u64,
        DType::U8 => (x as u8).into(),
        // Only `bool` is left.
        _ => u64::from(x != 0.0),
    }
}

/// The nearest number with this many digits after the first, and with an exponent from `lowest`;
/// ties to even. Larger ones are infinite in the type.
fn nearest(x: f64, digits: i32, lowest: i32) -> f64 {
    if !x.is_finite() {
        return x;
    }
    let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let step = 2f64.powi(exponent.max(lowest) - digits);
    (x / step).round_ties_even() * step
}

/// [`nearest`] of an integer that `f64` may not represent.
fn nearest_to_int(x: i64, digits: u32) -> f64 {
    let size = i128::from(x).abs();
    let step = 1 << (size | 1).ilog2().saturating_sub(digits);
    let (whole, rest) = (size / step, 2 * (size % step));
    let up = rest > step || rest == step && whole % 2 == 1;
    let size = ((whole + i128::from(up)) * step) as f64;
    if x < 0 { -size } else { size }
}

/// An integer in any type. It is not converted by way of `f64`, which would round twice.
pub(super) fn word_of_int(dtype: DType, x: i64) -> u64 {
    match dtype {
        DType::F16 => f16::from_f64(nearest_to_int(x, 10)).to_bits().into(),
        DType::Bf16 => bf16::from_f64(nearest_to_int(x, 7)).to_bits().into(),
        DType::F32 => (x as f32).to_bits().into(),
        DType::F64 => (x as f64).to_bits(),
        DType::I32 => u64::from(x as u32),
        DType::I64 => x as u64,
        DType::U8 => (x as u8).into(),
        _ => u64::from(x != 0),
    }
}

pub(super) fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        // 0 and NaN.
        Unary::Sign => x,
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Floor => x.floor(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Activation(f) => activation(f, x),
    }
}

/// NaN stays NaN in each of them.
fn activation(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Relu => larger(x, 0.0),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::Elu if x < 0.0 => x.exp_m1(),
        Activation::Selu if x < 0.0 => Activation::SELU_SCALE * Activation::SELU_ALPHA * x.exp_m1(),
        Activation::Selu => Activation::SELU_SCALE * x,
        // `log(1 + e^x)`, in a form that does not overflow.
        Activation::Softplus => larger(x, 0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Exponential => x.exp(),
        Activation::HardSigmoid => clamp(0.2 * x + 0.5, 0.0, 1.0),
        Activation::Relu6 => clamp(x, 0.0, 6.0),
        // An activation that is added to the enum fails the cases of conformance here.
        _ => x,
    }
}

/// `x` limited to `min..=max`; NaN stays NaN.
pub(super) fn clamp(x: f64, min: f64, max: f64) -> f64 {
    if x < min {
        min
    } else if x > max {
        max
    } else {
        x
    }
}

/// The larger number; NaN if either is NaN.
pub(super) fn larger<T: Copy + PartialOrd>(a: T, b: T) -> T {
    if a > b || is_nan(a) { a } else { b }
}

fn smaller<T: Copy + PartialOrd>(a: T, b: T) -> T {
    if a < b || is_nan(a) { a } else { b }
}

/// Only NaN does not equal itself.
pub(super) fn is_nan<T: PartialOrd>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

pub(super) fn binary_floats(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => larger(a, b),
        Binary::Min => smaller(a, b),
        Binary::FloorMod => match a % b {
            rest if rest != 0.0 && (rest < 0.0) != (b < 0.0) => rest + b,
            rest => rest,
        },
    }
}

/// Overflow wraps.
pub(super) fn binary_ints(f: Binary, a: i64, b: i64) -> i64 {
    match f {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div | Binary::FloorMod if b == 0 => 0,
        Binary::Div => a.wrapping_div(b),
        Binary::Max => larger(a, b),
        Binary::Min => smaller(a, b),
        Binary::FloorMod => match a.wrapping_rem(b) {
            0 => 0,
            // Rust's remainder has the sign of `a`.
            rest if (rest < 0) != (b < 0) => rest + b,
            rest => rest,
        },
    }
}

/// Comparisons with NaN are false, except `Ne`.
pub(super) fn holds<T: PartialOrd>(f: Compare, a: T, b: T) -> bool {
    match f {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}
