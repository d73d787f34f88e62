// Elementwise operations: one thread per element, operands of any strides. The last operand is the
// result.
#include "functions.cuh"
#include "prim.cuh"

#define UNARY(T, S)                                                                     \
  KERNEL(unary_##S)(int f, Strided<2> s, const T *x, T *out) {                          \
    FOR_EACH(i, s.count) {                                                              \
      i64 at[2];                                                                        \
      locate(s, i, at);                                                                 \
      out[at[1]] = unary(f, x[at[0]]);                                                  \
    }                                                                                   \
  }                                                                                     \
  KERNEL(affine_##S)(T mul, T add, Strided<2> s, const T *x, T *out) {                  \
    FOR_EACH(i, s.count) {                                                              \
      i64 at[2];                                                                        \
      locate(s, i, at);                                                                 \
      out[at[1]] = x[at[0]] * mul + add;                                                \
    }                                                                                   \
  }                                                                                     \
  KERNEL(clamp_##S)(T min, T max, Strided<2> s, const T *x, T *out) {                   \
    FOR_EACH(i, s.count) {                                                              \
      i64 at[2];                                                                        \
      locate(s, i, at);                                                                 \
      T y = x[at[0]];                                                                   \
      y = y < min ? min : y;                                                            \
      out[at[1]] = y > max ? max : y;                                                   \
    }                                                                                   \
  }                                                                                     \
  KERNEL(accumulate_##S)(Strided<2> s, const T *x, T *out) {                            \
    FOR_EACH(i, s.count) {                                                              \
      i64 at[2];                                                                        \
      locate(s, i, at);                                                                 \
      out[at[1]] += x[at[0]];                                                           \
    }                                                                                   \
  }                                                                                     \
  KERNEL(bias_activation_##S)(int f, Strided<3> s, const T *x, const T *bias, T *out) { \
    FOR_EACH(i, s.count) {                                                              \
      i64 at[3];                                                                        \
      locate(s, i, at);                                                                 \
      out[at[2]] = activate(f, x[at[0]] + bias[at[1]]);                                 \
    }                                                                                   \
  }                                                                                     \
  KERNEL(activation_grad_##S)(int f, Strided<3> s, const T *y, const T *dy, T *out) {   \
    FOR_EACH(i, s.count) {                                                              \
      i64 at[3];                                                                        \
      locate(s, i, at);                                                                 \
      out[at[2]] = activation_grad(f, y[at[0]], dy[at[1]]);                             \
    }                                                                                   \
  }
FOR_FLOATS(UNARY)

// Arithmetic like Rust's wrapping operations. Division by 0 gives 0.
template <class I, class U>
__device__ I integer_binary(int f, I a, I b) {
  switch (f) {
    case ADD: return (I)((U)a + (U)b);
    case SUB: return (I)((U)a - (U)b);
    case MUL: return (I)((U)a * (U)b);
    case DIV:
      // -1 is a special case: the negation of the smallest number overflows.
      return b == 0 ? (I)0 : b == (I)-1 ? (I)((U)0 - (U)a) : (I)(a / b);
    case MAX: return a > b ? a : b;
    case MIN: return a < b ? a : b;
    default: {
      if (b == 0 || b == (I)-1) return 0;
      I rest = (I)(a % b);
      return rest != 0 && (rest < 0) != (b < 0) ? (I)(rest + b) : rest;
    }
  }
}

__device__ inline i32 binary(int f, i32 a, i32 b) { return integer_binary<i32, u32>(f, a, b); }
__device__ inline i64 binary(int f, i64 a, i64 b) { return integer_binary<i64, u64>(f, a, b); }
__device__ inline u8 binary(int f, u8 a, u8 b) { return (u8)integer_binary<i32, u32>(f, a, b); }

__device__ inline float binary(int f, float a, float b) { return float_binary(f, a, b); }
__device__ inline double binary(int f, double a, double b) { return float_binary(f, a, b); }

#define BINARY(T, S)                                                          \
  KERNEL(binary_##S)(int f, Strided<3> s, const T *a, const T *b, T *out) {   \
    FOR_EACH(i, s.count) {                                                    \
      i64 at[3];                                                              \
      locate(s, i, at);                                                       \
      out[at[2]] = binary(f, a[at[0]], b[at[1]]);                             \
    }                                                                         \
  }                                                                           \
  KERNEL(compare_##S)(int f, Strided<3> s, const T *a, const T *b, u8 *out) { \
    FOR_EACH(i, s.count) {                                                    \
      i64 at[3];                                                              \
      locate(s, i, at);                                                       \
      out[at[2]] = compare(f, a[at[0]], b[at[1]]);                            \
    }                                                                         \
  }
FOR_NUMBERS(BINARY)

#define WORDS(T, S)                                                                            \
  KERNEL(fill_##S)(T value, const __grid_constant__ Strided<1> s, T *out) {                    \
    FOR_EACH(i, s.count) {                                                                     \
      i64 at[1];                                                                               \
      locate(s, i, at);                                                                        \
      out[at[0]] = value;                                                                      \
    }                                                                                          \
  }                                                                                            \
  KERNEL(copy_##S)(Strided<2> s, const T *x, T *out) {                                         \
    FOR_EACH(i, s.count) {                                                                     \
      i64 at[2];                                                                               \
      locate(s, i, at);                                                                        \
      out[at[1]] = x[at[0]];                                                                   \
    }                                                                                          \
  }                                                                                            \
  KERNEL(select_##S)(Strided<4> s, const u8 *condition, const T *a, const T *b, T *out) {      \
    FOR_EACH(i, s.count) {                                                                     \
      i64 at[4];                                                                               \
      locate(s, i, at);                                                                        \
      out[at[3]] = condition[at[0]] ? a[at[1]] : b[at[2]];                                     \
    }                                                                                          \
  }                                                                                            \
  /* `a` (new) if `time` is below the row's length, else `b` (old). Lengths are broadcast. */  \
  KERNEL(masked_update_##S)(i64 time, int wide, Strided<4> s, const void *lengths, const T *a, \
                            const T *b, T *out) {                                              \
    FOR_EACH(i, s.count) {                                                                     \
      i64 at[4];                                                                               \
      locate(s, i, at);                                                                        \
      out[at[3]] = time < integer(lengths, wide, at[0]) ? a[at[1]] : b[at[2]];                 \
    }                                                                                          \
  }
FOR_WORDS(WORDS)

// Conversions: floats to integers round toward zero and saturate; NaN gives 0.
template <class To, class From>
struct Convert {
  static __device__ To from(From x) { return (To)x; }
};
template <class From>
struct Convert<u8, From> {
  static __device__ u8 from(From x) { return (u8)(i64)x; }
};
#define SATURATE(To, From, low, high)         \
  template <>                                 \
  struct Convert<To, From> {                  \
    static __device__ To from(From x) {       \
      return is_nan(x)           ? (To)0      \
             : x <= (From)(low)  ? (To)(low)  \
             : x >= (From)(high) ? (To)(high) \
                                 : (To)x;     \
    }                                         \
  };
#define I32_MIN (-2147483647 - 1)
#define I64_MIN (-9223372036854775807LL - 1)
SATURATE(i32, float, I32_MIN, 2147483647)
SATURATE(i32, double, I32_MIN, 2147483647)
SATURATE(i64, float, I64_MIN, 9223372036854775807LL)
SATURATE(i64, double, I64_MIN, 9223372036854775807LL)
SATURATE(u8, float, 0, 255)
SATURATE(u8, double, 0, 255)

// `backend_api::rounding::to_odd`: a 16-bit float that is rounded from the result is the nearest
// to `x`.
__device__ inline float to_odd(float x) { return x; }
__device__ inline float to_odd(double x) {
  float near = (float)x;
  if ((double)near == x || is_nan(x) || __float_as_uint(near) & 1) return near;
  int away = fabs((double)near) > fabs(x) ? -1 : 1;
  return __uint_as_float(__float_as_uint(near) + away);
}
__device__ inline float to_odd(i64 x) {
  if (x < (1LL << 53) && x > -(1LL << 53)) return to_odd((double)x);
  return to_odd((double)((x & ~0xfffLL) | ((x & 0xfff) != 0 ? 0x800 : 0)));
}
__device__ inline float to_odd(i32 x) { return to_odd((double)x); }
__device__ inline float to_odd(u8 x) { return (float)x; }

// Codes of `DType`; see codes.rs.
enum { F32, F64, I32, I64, U8, BOOL, F16, BF16 };

template <class T>
__device__ void cast(int to, T x, i64 at, void *out) {
  switch (to) {
    case F32: ((float *)out)[at] = Convert<float, T>::from(x); break;
    case F64: ((double *)out)[at] = Convert<double, T>::from(x); break;
    case I32: ((i32 *)out)[at] = Convert<i32, T>::from(x); break;
    case I64: ((i64 *)out)[at] = Convert<i64, T>::from(x); break;
    case U8: ((u8 *)out)[at] = Convert<u8, T>::from(x); break;
    case F16: ((u16 *)out)[at] = float_to_half(to_odd(x)); break;
    case BF16: ((u16 *)out)[at] = float_to_bf16(to_odd(x)); break;
    default: ((u8 *)out)[at] = x != (T)0;
  }
}

// `number` converts an element in memory to a number.
#define CAST_FROM(T, S, number)                                   \
  KERNEL(cast_##S)(int to, Strided<2> s, const T *x, void *out) { \
    FOR_EACH(i, s.count) {                                        \
      i64 at[2];                                                  \
      locate(s, i, at);                                           \
      cast(to, number(x[at[0]]), at[1], out);                     \
    }                                                             \
  }
#define CAST(T, S) CAST_FROM(T, S, )
FOR_NUMBERS(CAST)
CAST_FROM(u16, f16, half_to_float)
CAST_FROM(u16, bf16, bf16_to_float)
