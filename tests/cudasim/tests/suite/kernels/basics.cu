#include "prim.cuh"

extern "C" __global__ void add(const float* __restrict__ a, const float* __restrict__ b,
                               float* __restrict__ c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffffu, v, d);
  return v;
}

// One partial sum per block, with static shared memory, one barrier, and shuffles.
extern "C" __global__ void __launch_bounds__(256) partial_sums(const float* x, float* out, int n) {
  __shared__ float part[32];
  float v = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
  v = warp_sum(v);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
#ifndef BUG_NO_BARRIER
  __syncthreads();
#endif
  if (threadIdx.x < 32) {
    v = threadIdx.x < (blockDim.x >> 5) ? part[threadIdx.x] : 0.f;
    v = warp_sum(v);
    if (threadIdx.x == 0) out[blockIdx.x] = v;
  }
}

// Transposes tiles of 16 x 16 in dynamic shared memory.
extern "C" __global__ void transpose(const float* x, float* y, int rows, int columns) {
  extern __shared__ float tile[];
  int c = blockIdx.x * 16 + threadIdx.x, r = blockIdx.y * 16 + threadIdx.y;
  if (r < rows && c < columns) tile[threadIdx.y * 17 + threadIdx.x] = x[r * columns + c];
  __syncthreads();
  int c2 = blockIdx.y * 16 + threadIdx.x, r2 = blockIdx.x * 16 + threadIdx.y;
  if (r2 < columns && c2 < rows) y[r2 * rows + c2] = tile[threadIdx.x * 17 + threadIdx.y];
}

__device__ int counter;
__constant__ float factors[4];

extern "C" __global__ void scale(float* x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  x[i] *= factors[i % 4];
  atomicAdd(&counter, 1);
}

struct Pair {
  long long a;
  short b;
};

extern "C" __global__ void scalars(double* out, signed char a, unsigned short b, float c, double d,
                                   long long e, Pair p) {
  out[0] = a, out[1] = b, out[2] = c, out[3] = d, out[4] = (double)e, out[5] = (double)p.a,
  out[6] = p.b;
}
