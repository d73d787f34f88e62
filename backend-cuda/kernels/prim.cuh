// All inline PTX of the backend. The simulated device has the same functions in plain C++
// (tests/cudasim, cudasim_prim.h), so a kernel that uses only these names runs on both.
#pragma once
#ifndef __CUDASIM__

// ---- flags between blocks ----

/// Reads after this load see all writes before the release whose value it returns. Spin on this,
/// never on a volatile read, with a `__nanosleep` in the loop.
__device__ __forceinline__ unsigned ld_acquire(const unsigned* p) {
  unsigned v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void st_release(unsigned* p, unsigned v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" : : "l"(p), "r"(v) : "memory");
}
__device__ __forceinline__ void add_release(unsigned* p, unsigned v) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" : : "l"(p), "r"(v) : "memory");
}

// ---- short floating point types, as bits; round to nearest, ties to even ----

__device__ __forceinline__ float bf16_to_float(unsigned short bits) {
  return __uint_as_float((unsigned)bits << 16);
}
__device__ __forceinline__ unsigned short float_to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}
__device__ __forceinline__ float half_to_float(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
__device__ __forceinline__ unsigned short float_to_half(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
/// Packs two numbers into a word, `low` in the lower half, as the tensor cores expect.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  return float_to_bf16(low) | (unsigned)float_to_bf16(high) << 16;
}
__device__ __forceinline__ unsigned pack_half(float low, float high) {
  return float_to_half(low) | (unsigned)float_to_half(high) << 16;
}

// ---- asynchronous copies from global to shared memory ----
// Addresses must be aligned to the size. The data is visible to this thread after
// `copy_async_wait`, and to the block after a barrier that follows.

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void copy_async_4(void* shared, const void* global) {
  unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" : : "r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" : : : "memory");
}
/// Waits until at most the latest `Pending` committed groups are in progress.
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(Pending) : "memory");
}
#else
__device__ __forceinline__ void copy_async_4(void* shared, const void* global) {
  *(unsigned*)shared = *(const unsigned*)global;
}
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  *(uint4*)shared = *(const uint4*)global;
}
__device__ __forceinline__ void copy_async_commit() {}
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {}
#endif

// ---- tensor cores: D[16,8] += A[16,K] B[K,8] by a whole warp, sums in float ----
// With g = lane / 4 and t = lane % 4:
//   d = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]
//   a = A[g][t], A[g+8][t], A[g][t+4], A[g+8][t+4];  b = B[t][g], B[t+4][g]
// where an index along K counts words: one tf32 number or two 16-bit numbers, as in
// `pack_bf16(A[g][2t], A[g][2t+1])`.

#if __CUDA_ARCH__ >= 800
/// Converts to tf32: 10 bits of mantissa, to nearest, ties away from zero.
__device__ __forceinline__ unsigned float_to_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
#define PRIM_MMA(name, shape_and_types)                                               \
  __device__ __forceinline__ void name(float (&d)[4], const unsigned (&a)[4],         \
                                       const unsigned (&b)[2]) {                      \
    asm volatile("mma.sync.aligned." shape_and_types                                  \
                 " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"             \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
  }
PRIM_MMA(mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
PRIM_MMA(mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
PRIM_MMA(mma_m16n8k16_half, "m16n8k16.row.col.f32.f16.f16.f32")
#undef PRIM_MMA
#endif

#endif  // __CUDASIM__
