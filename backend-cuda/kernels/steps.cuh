// What the generated kernels of steps share; see scan/print.rs.
#pragma once
#include "functions.cuh"

// A run of steps. Mirrors `Steps` in scan/run.rs.
struct Steps {
  i64 first;  // the time of the first step of a chunk
  i64 by;     // 1, or -1 if the steps run from the last one to the first
  i64 steps, batch;
  const void *lengths;  // [B] or 0
  i64 wide;
  void *at[1];  // the buffers: as many as the program has
};

__device__ inline bool runs(const Steps *s, i64 t, i64 row) {
  return s->lengths == 0 || t < integer(s->lengths, (int)s->wide, row);
}

__device__ inline double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }
__device__ inline double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }

template <class T>
__device__ inline T clamp(T x, T min, T max) {
  x = x < min ? min : x;
  return x > max ? max : x;
}

// Reductions of a row over the threads of a block. The order does not depend on other rows.
struct Sum {
  template <class W>
  static __device__ W none() {
    return (W)0;
  }
  template <class W>
  static __device__ W join(W a, W b) {
    return a + b;
  }
};
struct Largest {
  template <class W>
  static __device__ W none() {
    return (W)-infinity();
  }
  template <class W>
  static __device__ W join(W a, W b) {
    return larger(a, b);
  }
};

template <class F, class W>
__device__ inline W join_warp(W x) {
  for (int apart = 16; apart > 0; apart /= 2)
    x = F::join(x, __shfl_xor_sync(0xffffffffu, x, apart));
  return x;
}
template <class F, int Warps, class W>
__device__ inline W join_warps(const W *parts) {
  W x = parts[0];
  for (int i = 1; i < Warps; i++) x = F::join(x, parts[i]);
  return x;
}
