// CUDA's math functions. The accurate ones are the C library's. The fast ones are accurate too,
// which their contract allows: one more reason to compare with tolerances.
#pragma once

#define CUDASIM_UNARY(name)                 \
  extern "C" double name(double) noexcept;  \
  extern "C" float name##f(float) noexcept; \
  inline float name(float x) { return name##f(x); }
CUDASIM_UNARY(acos)
CUDASIM_UNARY(acosh)
CUDASIM_UNARY(asin)
CUDASIM_UNARY(asinh)
CUDASIM_UNARY(atan)
CUDASIM_UNARY(atanh)
CUDASIM_UNARY(cbrt)
CUDASIM_UNARY(ceil)
CUDASIM_UNARY(cos)
CUDASIM_UNARY(cosh)
CUDASIM_UNARY(erf)
CUDASIM_UNARY(erfc)
CUDASIM_UNARY(exp)
CUDASIM_UNARY(exp2)
CUDASIM_UNARY(expm1)
CUDASIM_UNARY(fabs)
CUDASIM_UNARY(floor)
CUDASIM_UNARY(lgamma)
CUDASIM_UNARY(log)
CUDASIM_UNARY(log10)
CUDASIM_UNARY(log1p)
CUDASIM_UNARY(log2)
CUDASIM_UNARY(nearbyint)
CUDASIM_UNARY(rint)
CUDASIM_UNARY(round)
CUDASIM_UNARY(sin)
CUDASIM_UNARY(sinh)
CUDASIM_UNARY(sqrt)
CUDASIM_UNARY(tan)
CUDASIM_UNARY(tanh)
CUDASIM_UNARY(tgamma)
CUDASIM_UNARY(trunc)
#undef CUDASIM_UNARY

#define CUDASIM_BINARY(name)                       \
  extern "C" double name(double, double) noexcept; \
  extern "C" float name##f(float, float) noexcept; \
  inline float name(float x, float y) { return name##f(x, y); }
CUDASIM_BINARY(atan2)
CUDASIM_BINARY(copysign)
CUDASIM_BINARY(fdim)
CUDASIM_BINARY(fmax)
CUDASIM_BINARY(fmin)
CUDASIM_BINARY(fmod)
CUDASIM_BINARY(hypot)
CUDASIM_BINARY(nextafter)
CUDASIM_BINARY(pow)
CUDASIM_BINARY(remainder)
#undef CUDASIM_BINARY

extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
extern "C" double ldexp(double, int) noexcept;
extern "C" float ldexpf(float, int) noexcept;
inline float ldexp(float x, int e) { return ldexpf(x, e); }
extern "C" double frexp(double, int*) noexcept;
extern "C" float frexpf(float, int*) noexcept;
inline float frexp(float x, int* e) { return frexpf(x, e); }
extern "C" double modf(double, double*) noexcept;
extern "C" float modff(float, float*) noexcept;
inline float modf(float x, float* whole) { return modff(x, whole); }

extern "C" int abs(int) noexcept;
inline long abs(long x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

template <class T>
inline T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, T b) {
  return a < b ? b : a;
}
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }

inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isnan(double x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }
inline bool signbit(double x) { return __builtin_signbit(x); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float normcdff(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }
inline double normcdf(double x) { return 0.5 * erfc(x * -0.70710678118654752); }
inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }

// Fast variants.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline void sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline void sincos(double x, double* s, double* c) { *s = sin(x), *c = cos(x); }
inline void __sincosf(float x, float* s, float* c) { sincosf(x, s, c); }

// Operations that the compiler must not fuse.
namespace cudasim {
template <class T>
inline T rounded(T x) {
#if defined(__x86_64__)
  __asm__("" : "+x"(x));
#else
  __asm__("" : "+w"(x));
#endif
  return x;
}
}  // namespace cudasim
inline float __fadd_rn(float a, float b) { return cudasim::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return cudasim::rounded(a - b); }
inline float __fmul_rn(float a, float b) { return cudasim::rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return cudasim::rounded(a + b); }
inline double __dsub_rn(double a, double b) { return cudasim::rounded(a - b); }
inline double __dmul_rn(double a, double b) { return cudasim::rounded(a * b); }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// Bit operations and conversions.
namespace cudasim {
template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "types of different sizes");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
/// Converts float to integer as a GPU does: values out of range saturate, NaN becomes 0.
template <class I, class F>
inline I saturate_to(F x) {
  constexpr I least = static_cast<I>(-1) < 0 ? static_cast<I>(1ull << (8 * sizeof(I) - 1)) : 0;
  constexpr I most = static_cast<I>(~least);
  if (__builtin_isnan(x)) return 0;
  if (x <= static_cast<F>(least)) return least;
  if (x >= static_cast<F>(most)) return most;
  return static_cast<I>(x);
}
}  // namespace cudasim
inline int __float_as_int(float x) { return cudasim::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return cudasim::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return cudasim::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return cudasim::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return cudasim::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return cudasim::bits_as<double>(x); }
inline int __double2hiint(double x) { return static_cast<int>(__double_as_longlong(x) >> 32); }
inline int __double2loint(double x) { return static_cast<int>(__double_as_longlong(x)); }
inline double __hiloint2double(int hi, int lo) {
  return __longlong_as_double(
      static_cast<long long>(static_cast<unsigned long long>(static_cast<unsigned>(hi)) << 32 |
                             static_cast<unsigned>(lo)));
}
inline int __float2int_rn(float x) { return cudasim::saturate_to<int>(rintf(x)); }
inline int __float2int_rz(float x) { return cudasim::saturate_to<int>(x); }
inline int __float2int_rd(float x) { return cudasim::saturate_to<int>(floorf(x)); }
inline int __float2int_ru(float x) { return cudasim::saturate_to<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return cudasim::saturate_to<unsigned>(rintf(x)); }
inline unsigned __float2uint_rz(float x) { return cudasim::saturate_to<unsigned>(x); }
inline long long __float2ll_rn(float x) { return cudasim::saturate_to<long long>(rintf(x)); }
inline long long __float2ll_rz(float x) { return cudasim::saturate_to<long long>(x); }
inline int __double2int_rn(double x) { return cudasim::saturate_to<int>(rint(x)); }
inline int __double2int_rz(double x) { return cudasim::saturate_to<int>(x); }
inline long long __double2ll_rn(double x) { return cudasim::saturate_to<long long>(rint(x)); }
inline long long __double2ll_rz(double x) { return cudasim::saturate_to<long long>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ull2float_rn(unsigned long long x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
  return static_cast<unsigned>(((static_cast<unsigned long long>(hi) << 32 | lo) << (shift & 31)) >>
                               32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
  return static_cast<unsigned>((static_cast<unsigned long long>(hi) << 32 | lo) >> (shift & 31));
}
