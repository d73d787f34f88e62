//! Rounding of numbers to 16-bit floats, once.

use half::{bf16, f16};

use crate::DType;

/// Rounds to `f32` by way of the odd neighbour: an inexact result has an odd last bit. Rounding the
/// result to a 16-bit float then gives the 16-bit float nearest to `x`, ties to even. (Rounding to
/// the nearest `f32` first could end on a tie that `x` is not on. Boldo & Melquiond 2008,
/// "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd".)
///
/// ```
/// use recurrent::backend::rounding::to_odd;
///
/// // Just above the middle between 1 and the next bfloat16.
/// let x = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
/// assert_eq!(x as f32, 1.0 + 2f32.powi(-8));
/// assert_eq!(to_odd(x), 1.0 + 2f32.powi(-8) + 2f32.powi(-23));
/// ```
#[inline(always)]
pub fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let (bits, exact) = (near.to_bits(), f64::from(near));
    let too_large = exact.abs() > x.abs();
    // The neighbour on the other side of `x`; the pattern of an infinity is followed by NaN, but an
    // infinity is either exact or too large.
    let other = if too_large {
        bits.wrapping_sub(1)
    } else {
        bits.wrapping_add(1)
    };
    // NaN does not equal itself either.
    let keep = exact == x || bits & 1 == 1 || x.is_nan();
    f32::from_bits(if keep { bits } else { other })
}

/// [`to_odd`] of an integer.
#[inline(always)]
pub fn int_to_odd(x: i64) -> f32 {
    // An integer that `f64` does not represent: between the same multiples of 4096 as before, with
    // fewer bits. No 16-bit float and no middle of two is between these.
    let fewer = (x & !0xfff) | i64::from(x & 0xfff != 0) << 11;
    let large = x.unsigned_abs() >= 1 << 53;
    to_odd(if large { fewer } else { x } as f64)
}

/// The number of a float type nearest to `x`, ties to even.
pub fn nearest(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F16 => f16::from_f32(to_odd(x)).to_f64(),
        DType::Bf16 => bf16::from_f32(to_odd(x)).to_f64(),
        DType::F32 => f64::from(x as f32),
        _ => x,
    }
}

/// The largest number of a float type below `high`: the end of a half-open range, which rounding
/// may reach but which is excluded.
pub fn below(dtype: DType, high: f64) -> f64 {
    let near = nearest(dtype, high);
    if near < high {
        return near;
    }
    match dtype {
        // A 16-bit pattern is followed by that of the next number away from 0.
        DType::F16 => f16::from_bits(bits_below(f16::from_f64(near).to_bits())).to_f64(),
        DType::Bf16 => bf16::from_bits(bits_below(bf16::from_f64(near).to_bits())).to_f64(),
        DType::F32 => f64::from((near as f32).next_down()),
        _ => near.next_down(),
    }
}

fn bits_below(bits: u16) -> u16 {
    match bits {
        // Below either zero is the negative number of the least magnitude.
        0 | 0x8000 => 0x8001,
        negative if negative & 0x8000 != 0 => negative + 1,
        positive => positive - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest number by exact division: another way than rounding to odd.
    fn divided(digits: i32, lowest: i32, x: f64) -> f64 {
        let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
        let step = 2f64.powi(exponent.max(lowest) - digits);
        (x / step).round_ties_even() * step
    }

    #[test]
    fn middles_of_numbers_and_their_neighbours_are_rounded_once() {
        for (dtype, digits, lowest, largest) in [
            (DType::F16, 10, -14, 65504.0),
            (DType::Bf16, 7, -126, f64::from(bf16::MAX)),
        ] {
            let mut twice = 0;
            for pattern in 0..0x7fffu16 {
                let number = |bits| match dtype {
                    DType::F16 => f16::from_bits(bits).to_f64(),
                    _ => bf16::from_bits(bits).to_f64(),
                };
                let (low, high) = (number(pattern), number(pattern + 1));
                if !high.is_finite() {
                    continue;
                }
                let middle = (low + high) / 2.0;
                for x in [low, middle.next_down(), middle, middle.next_up()] {
                    for x in [x, -x] {
                        let expected = divided(digits, lowest, x);
                        assert!(expected.abs() <= largest);
                        assert_eq!(nearest(dtype, x), expected, "{dtype} {x:e}");
                        twice += u32::from(nearest(dtype, f64::from(x as f32)) != expected);
                    }
                }
            }
            assert!(twice > 10_000, "{dtype}: {twice}");
        }
        assert_eq!(nearest(DType::F16, 65_519.999_999), 65504.0);
        assert_eq!(nearest(DType::F16, 65520.0), f64::INFINITY);
        assert_eq!(nearest(DType::Bf16, 1e300), f64::INFINITY);
        assert_eq!(nearest(DType::Bf16, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert!(nearest(DType::F16, f64::NAN).is_nan());
        assert_eq!(nearest(DType::F16, 1e-300), 0.0);
    }

    #[test]
    fn integers_are_rounded_once() {
        for exponent in 9..62u32 {
            // The middle between two bfloat16.
            let middle = (1i64 << exponent) + (1 << (exponent - 8));
            for x in [middle - 1, middle, middle + 1] {
                for x in [x, -x] {
                    let found = bf16::from_f32(int_to_odd(x)).to_f64() as i64;
                    let (down, up) = (1i64 << exponent, (1 << exponent) + (1 << (exponent - 7)));
                    let size = if x.abs() <= middle { down } else { up };
                    assert_eq!(found, size * x.signum(), "{x}");
                }
            }
        }
        for x in [0, 1, -1, i64::MIN] {
            assert_eq!(int_to_odd(x), x as f32);
        }
    }

    #[test]
    fn ends_of_ranges_are_excluded() {
        for dtype in [DType::F16, DType::Bf16, DType::F32, DType::F64] {
            for high in [1.0, 0.3, -0.3, -2.0, 1.0 + 1e-12, 0.0, 60_000.3] {
                let found = below(dtype, high);
                assert!(
                    found < high && nearest(dtype, found) == found,
                    "{dtype} {high}"
                );
                // No other number is between.
                let middle = f64::midpoint(found, high);
                assert!([found, high, nearest(dtype, high)].contains(&nearest(dtype, middle)));
                assert!(nearest(dtype, found.next_up()) == found || dtype == DType::F64);
            }
        }
    }
}
