// Conversions between float and the 16-bit formats, as bits. They round to nearest, ties to even,
// unless stated otherwise. Shared by the kernels and the simulated cuBLAS.
#pragma once

namespace cudasim {

inline unsigned float_bits(float x) {
  unsigned bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of_bits(unsigned bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

inline float bf16_to_float(unsigned short bits) {
  return float_of_bits(static_cast<unsigned>(bits) << 16);
}

inline unsigned short float_to_bf16(float x) {
  unsigned bits = float_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the NaN that cvt.rn.bf16.f32 returns
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float half_to_float(unsigned short bits) {
  unsigned sign = static_cast<unsigned>(bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1fu,
           mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) return float_of_bits(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return float_of_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
  float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

inline unsigned short float_to_half(float x) {
  unsigned bits = float_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  // Rounds to infinity.
  if (magnitude >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves the units of 2^-24 in the mantissa, rounded by the addition.
    unsigned units = float_bits(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    return static_cast<unsigned short>(sign | units);
  }
  unsigned rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<unsigned short>(sign | (rounded - 0x38000000u) >> 13);
}

/// Rounds to nearest, ties away from zero, to 10 bits of mantissa, like cvt.rna.tf32.f32.
inline unsigned float_to_tf32(float x) {
  unsigned bits = float_bits(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
  return (bits + 0x1000u) & 0xffffe000u;
}

}  // namespace cudasim
