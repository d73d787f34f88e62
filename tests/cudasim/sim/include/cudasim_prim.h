// The functions that prim.cuh of the CUDA backend writes in inline PTX, under the same names.
#pragma once
#include "cudasim_half.h"

// ---- flags between blocks ----
inline unsigned ld_acquire(const unsigned* p) {
  cudasim::api->suspend_poll();
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
inline void st_release(unsigned* p, unsigned v) {
  cudasim::api->preempt();
  __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
inline void add_release(unsigned* p, unsigned v) { cudasim::atomic_add(p, v); }

// ---- short floating point types, as bits ----
inline float bf16_to_float(unsigned short bits) { return cudasim::bf16_to_float(bits); }
inline unsigned short float_to_bf16(float x) { return cudasim::float_to_bf16(x); }
inline float half_to_float(unsigned short bits) { return cudasim::half_to_float(bits); }
inline unsigned short float_to_half(float x) { return cudasim::float_to_half(x); }
inline unsigned pack_bf16(float low, float high) {
  return float_to_bf16(low) | static_cast<unsigned>(float_to_bf16(high)) << 16;
}
inline unsigned pack_half(float low, float high) {
  return float_to_half(low) | static_cast<unsigned>(float_to_half(high)) << 16;
}

// ---- asynchronous copies from global to shared memory ----
namespace cudasim {
template <class Word, unsigned Words>
void copy_words(void* to, const void* from) {
  for (unsigned i = 0; i < Words; i++)
    static_cast<Word*>(to)[i] = static_cast<const Word*>(from)[i];
}
}  // namespace cudasim
inline void copy_async_4(void* shared, const void* global) {
  cudasim::api->copy_async(shared, global, 4, cudasim::copy_words<unsigned, 1>);
}
inline void copy_async_16(void* shared, const void* global) {
  cudasim::api->copy_async(shared, global, 16, cudasim::copy_words<unsigned, 4>);
}
inline void copy_async_commit() { cudasim::api->copy_async_commit(); }
template <int Pending>
inline void copy_async_wait() {
  cudasim::api->copy_async_wait(Pending);
}

#if __CUDA_ARCH__ >= 800
inline unsigned float_to_tf32(float x) { return cudasim::float_to_tf32(x); }

// ---- tensor cores: D[16,8] += A[16,K] B[K,8], one tile per warp ----
namespace cudasim {

template <unsigned K>
struct MmaOperand {
  float* d;
  const unsigned* a;
  const unsigned* b;
};

// Lane l holds rows l/4 and l/4 + 8 of A, column l/4 of B, and of D the rows of A and columns
// 2(l%4), 2(l%4)+1. An operand word is one tf32 number, or two 16-bit numbers adjacent along K.
template <unsigned PerWord, float (*Decode)(unsigned word, unsigned part)>
void combine_mma(unsigned, void* const* lanes) {
  constexpr unsigned K = 8 * PerWord;
  for (unsigned lane = 0; lane < 32; lane++)
    if (!lanes[lane])
      return api->fail("a tensor core product with lanes that have left the kernel");
  float a[16][K], b[K][8];
  for (unsigned lane = 0; lane < 32; lane++) {
    auto* operand = static_cast<const MmaOperand<K>*>(lanes[lane]);
    unsigned group = lane >> 2, thread = lane & 3;
    for (unsigned word = 0; word < 4; word++)
      for (unsigned part = 0; part < PerWord; part++) {
        unsigned row = group + 8 * (word & 1), k = (thread + 4 * (word >> 1)) * PerWord + part;
        a[row][k] = Decode(operand->a[word], part);
      }
    for (unsigned word = 0; word < 2; word++)
      for (unsigned part = 0; part < PerWord; part++)
        b[(thread + 4 * word) * PerWord + part][group] = Decode(operand->b[word], part);
  }
  for (unsigned lane = 0; lane < 32; lane++) {
    auto* operand = static_cast<const MmaOperand<K>*>(lanes[lane]);
    for (unsigned i = 0; i < 4; i++) {
      unsigned row = (lane >> 2) + 8 * (i >> 1), column = 2 * (lane & 3) + (i & 1);
      float sum = 0.f;
      for (unsigned k = 0; k < K; k++) sum += a[row][k] * b[k][column];
      operand->d[i] += sum;
    }
  }
}

inline float decode_tf32(unsigned word, unsigned) { return float_of_bits(word & 0xffffe000u); }
inline float decode_bf16(unsigned word, unsigned part) {
  return bf16_to_float(static_cast<unsigned short>(word >> 16 * part));
}
inline float decode_half(unsigned word, unsigned part) {
  return half_to_float(static_cast<unsigned short>(word >> 16 * part));
}

}  // namespace cudasim

inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                             CUDASIM_HERE) {
  cudasim::MmaOperand<8> operand{d, a, b};
  cudasim::api->suspend_warp_collective({file, line}, 0xffffffffu,
                                        cudasim::combine_mma<1, cudasim::decode_tf32>, &operand);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                              CUDASIM_HERE) {
  cudasim::MmaOperand<16> operand{d, a, b};
  cudasim::api->suspend_warp_collective({file, line}, 0xffffffffu,
                                        cudasim::combine_mma<2, cudasim::decode_bf16>, &operand);
}
inline void mma_m16n8k16_half(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                              CUDASIM_HERE) {
  cudasim::MmaOperand<16> operand{d, a, b};
  cudasim::api->suspend_warp_collective({file, line}, 0xffffffffu,
                                        cudasim::combine_mma<2, cudasim::decode_half>, &operand);
}
#endif
