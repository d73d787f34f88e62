// Kernels with one bug each. A nonzero `right`, if a kernel has it, selects the correct version.
#include "prim.cuh"

// Barriers in two branches. `right`: a branch that all threads take, with one barrier.
extern "C" __global__ void branches(float* x, int right) {
  if (right) {
    x[threadIdx.x] = threadIdx.x < 16 ? 1.f : 2.f;
    __syncthreads();
  } else if (threadIdx.x < 16) {
    x[threadIdx.x] = 1.f;
    __syncthreads();  // here: first branch
  } else {
    x[threadIdx.x] = 2.f;
    __syncthreads();  // here: second branch
  }
}

// A collective of the whole warp that half of the warp never reaches: it waits at the block
// barrier.
extern "C" __global__ void absent_lanes(float* x, int right) {
  float v = threadIdx.x;
  if (right || threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);  // here: half a warp
  __syncthreads();                                                        // here: all threads
  x[threadIdx.x] = v;
}

// A lane calls a collective with a mask that does not contain it.
extern "C" __global__ void wrong_mask(float* x, int right) {
  unsigned mask = right || threadIdx.x < 16 ? 0xffffffffu : 0x0000ffffu;
  x[threadIdx.x] = __shfl_sync(mask, (float)threadIdx.x, 3);  // here: own mask
}

// Two different collectives at once with the same mask.
extern "C" __global__ void mixed_collectives(float* x, int right) {
  if (right || threadIdx.x < 16) {
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.f, 1);
  } else {
    x[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
  }
}

// Waits for a flag that no thread sets.
extern "C" __global__ void no_progress(unsigned* flag, int right) {
  if (right && threadIdx.x == 31) st_release(flag, 1u);
  while (ld_acquire(flag) == 0u) __nanosleep(20);
}

extern "C" __global__ void write_one_too_many(float* x, int n, int right) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (right ? i < n : i <= n) x[i] = 1.f;
}

extern "C" __global__ void read_one_too_many(const float* x, float* y, int n, int right) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[right ? i : i + 1];
}

extern "C" __global__ void check(const int* x, int limit) {
  assert(x[threadIdx.x] < limit);  // here: plain assert
}

extern "C" __global__ void check_behind_a_barrier(const int* x, int limit) {
  __syncthreads();
  assert(x[threadIdx.x] < limit);  // here: late assert
}

// Asynchronous copies without a wait.
extern "C" __global__ void forgotten_copy(const float* x, float* y, int right) {
  __shared__ __align__(16) float tile[128];
  copy_async_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x);
  copy_async_commit();
  if (right) copy_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = tile[127 - (4 * threadIdx.x + i)];
}

// Each thread writes one word; another thread reads it later.
extern "C" __global__ void read_after_write(int* x, int* y, int right) {
  x[threadIdx.x] = threadIdx.x;
  if (right) __syncthreads();
  y[threadIdx.x] = x[(threadIdx.x + 1) % blockDim.x];
  // All threads wait once, whatever `right` is.
  __syncthreads();
}

// Adds without atomics.
extern "C" __global__ void count(int* total, int right) {
  if (right)
    atomicAdd(total, 1);
  else
    *total = *total + 1;
}

extern "C" __global__ void write_to(float* x, int barrier) {
  if (threadIdx.x == 5) x[threadIdx.x] = 1.f;
  if (barrier) __syncthreads();
}

extern "C" __global__ void write_to_without_barrier(float* x) {
  if (threadIdx.x == 5) x[threadIdx.x] = 1.f;
}

__device__ int deep(volatile int* x, int n) {
  volatile int here[64];
  here[n & 63] = n;
  return n == 0 ? x[0] : deep(x, n - 1) + here[n & 63];
}
extern "C" __global__ void recurse(int* x, int n) {
  __syncthreads();
  x[threadIdx.x] = deep(x + 32, n);
}
