//! Conversions between the bits of 16-bit floats and `f32`. They have no branches, so that loops
//! over them compile to vector instructions.

/// The bits of an infinite `f32`.
const INFINITE: u32 = 0xff << 23;

#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to nearest, ties to even.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding could carry a NaN into infinity.
    let nan = bits >> 16 | 0x40;
    (if x.is_nan() { nan } else { rounded }) as u16
}

#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    /// The difference between the exponent biases, as a factor: 2^(127 - 15).
    const SCALE: f32 = f32::from_bits((127 + 127 - 15) << 23);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The product is exact, and normalizes numbers that are subnormal in 16 bits.
    let number = (f32::from_bits(magnitude) * SCALE).to_bits();
    let special = if bits & 0x7c00 == 0x7c00 { INFINITE } else { 0 };
    f32::from_bits(number | special | u32::from(bits & 0x8000) << 16)
}

/// Rounds to nearest, ties to even; from 65520 on the result is infinite.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    /// The smallest normal 16-bit number, 2^-14, and the first power of two that is too large,
    /// 2^16.
    const NORMAL: u32 = (127 - 14) << 23;
    const TOO_LARGE: u32 = (127 + 16) << 23;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let sign = (x.to_bits() >> 16) & 0x8000;
    let normal = magnitude
        .wrapping_add(0xfff + (magnitude >> 13 & 1))
        .wrapping_sub((127 - 15) << 23)
        >> 13;
    // The spacing of `f32` numbers at 0.5 is that of subnormal 16-bit numbers, so the addition
    // rounds to one of these.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < NORMAL {
        subnormal
    } else {
        normal
    };
    let large = if magnitude > INFINITE { 0x7e00 } else { 0x7c00 };
    let bits = if magnitude < TOO_LARGE { finite } else { large };
    (sign | bits) as u16
}
