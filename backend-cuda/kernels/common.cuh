// Code shared by all kernels: number types, strided operands, loops.
//
// Only NVRTC's built-in declarations may be used: the toolkit's headers are not available at run
// time.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef int i32;
typedef unsigned short u16;
typedef unsigned char u8;

// `KERNEL(name)(arguments) { .. }` defines a kernel; launch bounds may follow the name. With
// ONE_KERNEL and WANT_x=CHOSEN, only kernel x has code: the others are templates that nothing uses
// (see `Code` in kernels.rs).
#ifdef ONE_KERNEL
#define CHOSEN ~, extern "C"
#define SECOND_(a, b, ...) b
#define PICK_(...) SECOND_(__VA_ARGS__, template <int>, )
#define KERNEL(name, ...) PICK_(WANT_##name) __global__ void __VA_ARGS__ name
#else
#define KERNEL(name, ...) extern "C" __global__ void __VA_ARGS__ name
#endif

// Element type, and the suffix of the kernels for it.
#define FOR_FLOATS(X) X(float, f32) X(double, f64)
#define FOR_NUMBERS(X) FOR_FLOATS(X) X(i32, i32) X(i64, i64) X(u8, u8)
// Elements that are only moved: one kernel per size (see `words` in launch.rs).
#define FOR_WORDS(X) X(u8, w1) X(u16, w2) X(u32, w4) X(u64, w8)

// Loops over each index below `count`, for any grid size.
#define FOR_EACH(i, count)                                              \
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (count); \
       i += (i64)gridDim.x * blockDim.x)

// Element offsets of N operands of one shape. The host merges axes where it can, so that most
// operands have only one. Mirrors `Strided` in strided.rs.
template <int N>
struct Strided {
  i64 count;
  i64 rank;
  i64 dims[6];
  i64 strides[N][6];
  i64 offsets[N];
};

template <int N>
__device__ inline void locate(const Strided<N> &s, i64 i, i64 (&at)[N]) {
  for (int k = 0; k < N; k++) at[k] = s.offsets[k];
  // Most operands have one axis. Unrolled, the divisions are half of the code of a small kernel,
  // and take as much of the compiler's time.
#pragma unroll 1
  for (int axis = (int)s.rank - 1; axis > 0; axis--) {
    i64 rest = i / s.dims[axis];
    i64 place = i - rest * s.dims[axis];
    for (int k = 0; k < N; k++) at[k] += place * s.strides[k][axis];
    i = rest;
  }
  for (int k = 0; k < N; k++) at[k] += i * s.strides[k][0];
}

// The first error found by a kernel; the host reads it when it waits for results. Mirrors `Fault`
// in fault.rs.
struct Fault {
  u32 kind;  // 0: nothing
  u32 unused;
  i64 place;
  i64 value;
  i64 limit;
};

__device__ inline void report(Fault *fault, u32 kind, i64 place, i64 value, i64 limit) {
  if (atomicCAS(&fault->kind, 0u, kind) == 0u) {
    fault->place = place;
    fault->value = value;
    fault->limit = limit;
  }
}

// Element `at` of an integer operand with 8 (`wide`) or 4 bytes per element.
__device__ inline i64 integer(const void *x, int wide, i64 at) {
  return wide ? ((const i64 *)x)[at] : (i64)((const i32 *)x)[at];
}

// The accumulation type of sums: the element type or a wider one.
template <class T>
struct Wide {
  typedef T type;
};
template <>
struct Wide<float> {
  typedef double type;
};

template <class T>
__device__ inline bool is_nan(T x) {
  return x != x;
}

// Maximum and minimum; NaN if either operand is NaN.
template <class T>
__device__ inline T larger(T a, T b) {
  return a > b || is_nan(a) ? a : b;
}
template <class T>
__device__ inline T smaller(T a, T b) {
  return a < b || is_nan(a) ? a : b;
}

__device__ inline float exp_(float x) { return expf(x); }
__device__ inline double exp_(double x) { return exp(x); }
__device__ inline float log_(float x) { return logf(x); }
__device__ inline double log_(double x) { return log(x); }
__device__ inline float sqrt_(float x) { return sqrtf(x); }
__device__ inline double sqrt_(double x) { return sqrt(x); }
__device__ inline float tanh_(float x) { return tanhf(x); }
__device__ inline double tanh_(double x) { return tanh(x); }
__device__ inline float floor_(float x) { return floorf(x); }
__device__ inline double floor_(double x) { return floor(x); }
__device__ inline float fmod_(float x, float y) { return fmodf(x, y); }
__device__ inline double fmod_(double x, double y) { return fmod(x, y); }

template <class T>
__device__ inline T sigmoid_(T x) {
  return (T)1 / ((T)1 + exp_(-x));
}

template <class T>
__device__ inline T abs_(T x) {
  return x < (T)0 ? -x : x;
}
__device__ inline float expm1_(float x) { return expm1f(x); }
__device__ inline double expm1_(double x) { return expm1(x); }
__device__ inline float log1p_(float x) { return log1pf(x); }
__device__ inline double log1p_(double x) { return log1p(x); }

// Generated from backend-api/src/activation.rs by `headers` in kernels.rs: codes, `activate`,
// `activation_grad` and `activate_uncommon`.
#include "activations.cuh"
