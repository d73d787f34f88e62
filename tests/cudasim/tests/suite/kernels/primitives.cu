#include "prim.cuh"

extern "C" __global__ void widen(const unsigned short* bits, float* from_half, float* from_bf16,
                                 int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) from_half[i] = half_to_float(bits[i]), from_bf16[i] = bf16_to_float(bits[i]);
}

extern "C" __global__ void narrow(const float* x, unsigned short* half, unsigned short* bf16,
                                  unsigned* tf32, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n)
    half[i] = float_to_half(x[i]), bf16[i] = float_to_bf16(x[i]), tf32[i] = float_to_tf32(x[i]);
}

// C[16,8] = A[16,K] B[K,8] by one warp. `kind` 0: tf32, 1: bf16, 2: half.
extern "C" __global__ void tile(const float* A, const float* B, float* C, int K, int kind) {
  int g = threadIdx.x >> 2, t = threadIdx.x & 3;
  float d[4] = {0.f, 0.f, 0.f, 0.f};
  if (kind == 0) {
    for (int k = t; k < K; k += 8) {
      unsigned a[4] = {float_to_tf32(A[g * K + k]), float_to_tf32(A[(g + 8) * K + k]),
                       float_to_tf32(A[g * K + k + 4]), float_to_tf32(A[(g + 8) * K + k + 4])};
      unsigned b[2] = {float_to_tf32(B[k * 8 + g]), float_to_tf32(B[(k + 4) * 8 + g])};
      mma_m16n8k8_tf32(d, a, b);
    }
  } else {
    for (int k = 2 * t; k < K; k += 16) {
      const float *up = A + g * K + k, *down = up + 8 * K, *left = B + k * 8 + g,
                  *right = left + 64;
      if (kind == 1) {
        unsigned a[4] = {pack_bf16(up[0], up[1]), pack_bf16(down[0], down[1]),
                         pack_bf16(up[8], up[9]), pack_bf16(down[8], down[9])};
        unsigned b[2] = {pack_bf16(left[0], left[8]), pack_bf16(right[0], right[8])};
        mma_m16n8k16_bf16(d, a, b);
      } else {
        unsigned a[4] = {pack_half(up[0], up[1]), pack_half(down[0], down[1]),
                         pack_half(up[8], up[9]), pack_half(down[8], down[9])};
        unsigned b[2] = {pack_half(left[0], left[8]), pack_half(right[0], right[8])};
        mma_m16n8k16_half(d, a, b);
      }
    }
  }
  C[g * 8 + 2 * t] = d[0], C[g * 8 + 2 * t + 1] = d[1];
  C[(g + 8) * 8 + 2 * t] = d[2], C[(g + 8) * 8 + 2 * t + 1] = d[3];
}

// Sums chunks of 32 numbers, double-buffered: the next chunk is loaded while one is added.
extern "C" __global__ void pipeline(const float* x, float* sum, int chunks) {
  __shared__ __align__(16) float buffer[2][32];
  float total = 0.f;
  copy_async_4(&buffer[0][threadIdx.x], x + threadIdx.x);
  copy_async_commit();
  for (int c = 0; c < chunks; c++) {
    if (c + 1 < chunks)
      copy_async_4(&buffer[(c + 1) & 1][threadIdx.x], x + (c + 1) * 32 + threadIdx.x);
    copy_async_commit();
#ifdef BUG_WAITS_FOR_TOO_LITTLE
    copy_async_wait<2>();
#else
    copy_async_wait<1>();
#endif
    __syncthreads();
    total += buffer[c & 1][31 - threadIdx.x];
    __syncthreads();
  }
  sum[31 - threadIdx.x] = total;
}

// All forms of votes and shuffles. Each form writes one row of 32 words per warp.
template <class T>
__device__ void shuffles(T* out, T v) {
  int i = threadIdx.x;
  out[i] = __shfl_sync(0xffffffffu, v, 5);
  out[32 + i] = __shfl_sync(0xffffffffu, v, i + 1, 8);
  out[64 + i] = __shfl_up_sync(0xffffffffu, v, 3);
  out[96 + i] = __shfl_down_sync(0xffffffffu, v, 3, 16);
  out[128 + i] = __shfl_xor_sync(0xffffffffu, v, 6);
}
extern "C" __global__ void collectives(int* ints, double* doubles, unsigned long long* longs,
                                       unsigned* votes) {
  int i = threadIdx.x;
  shuffles(ints, i * 3);
  shuffles(doubles, i * 0.5);
  shuffles(longs, (unsigned long long)i << 40);
  votes[i] = __ballot_sync(0xffffffffu, i % 3 == 0);
  votes[32 + i] = __any_sync(0xffffffffu, i == 7) + 2 * __any_sync(0xffffffffu, i == 99);
  votes[64 + i] = __all_sync(0xffffffffu, i < 32) + 2 * __all_sync(0xffffffffu, i < 31);
  votes[96 + i] = __syncthreads_count(i < 10);
  votes[128 + i] = __syncthreads_and(i < 32) + 2 * __syncthreads_and(i < 31);
  votes[160 + i] = __syncthreads_or(i == 0) + 2 * __syncthreads_or(i == 40);
  // Each half of the warp runs its own collective.
  if (i < 16)
    votes[192 + i] = __ballot_sync(0x0000ffffu, i & 1);
  else
    votes[192 + i] = __ballot_sync(0xffff0000u, i & 2);
  // Collectives do not wait for lanes that have exited.
  if (i >= 24) return;
  votes[224 + i] = __ballot_sync(0xffffffffu, 1);
}

extern "C" __global__ void atomics(int* i, unsigned* u, unsigned long long* l, float* f,
                                   double* d) {
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(i, t), atomicAdd(u, 1u), atomicAdd(l, 1ull << 33), atomicAdd(f, 0.5f),
      atomicAdd(d, 0.25);
  atomicMax(i + 1, t), atomicMin(i + 2, -t), atomicOr(u + 1, 1u << (t % 32)), atomicSub(i + 3, 2);
  atomicInc(u + 2, 9u), atomicExch(i + 4, 77);
  // Addition by compare-and-swap.
  unsigned long long seen = atomicAdd(l + 1, 0ull), last;
  do last = seen;
  while ((seen = atomicCAS(l + 1, last, last + 3)) != last);
}
