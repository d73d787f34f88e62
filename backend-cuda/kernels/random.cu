// Counter-based random numbers: Philox 4x32-10, as in `backend_api::philox`. One thread computes
// the four numbers of a counter block. Each product and each sum is rounded separately (no fused
// multiply-add), so that all devices give the same numbers.
#include "common.cuh"

// Codes of `Distribution`; see random.rs.
enum { UNIFORM, NORMAL };

__device__ inline void philox(u64 key, u64 block, u32 (&c)[4]) {
  u32 k0 = (u32)key, k1 = (u32)(key >> 32);
  c[0] = (u32)block;
  c[1] = (u32)(block >> 32);
  c[2] = 0;
  c[3] = 0;
  for (int round = 0; round < 10; round++) {
    u64 a = (u64)0xD2511F53u * c[0];
    u64 b = (u64)0xCD9E8D57u * c[2];
    u32 first = (u32)(b >> 32) ^ c[1] ^ k0;
    u32 third = (u32)(a >> 32) ^ c[3] ^ k1;
    c[1] = (u32)b;
    c[3] = (u32)a;
    c[0] = first;
    c[2] = third;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

__device__ inline double unit(u32 word) { return (double)(word >> 8) * (1.0 / 16777216.0); }

// `a + b * c`, rounded twice.
__device__ inline double step(double a, double b, double c) {
  return __dadd_rn(a, __dmul_rn(b, c));
}

// `a` and `b`: low and high, or mean and standard deviation. `top`: the largest number below high.
template <class T>
__device__ void numbers(int distribution, double a, double b, T top, const u32 (&words)[4],
                        T (&out)[4]) {
  if (distribution == UNIFORM) {
    for (int w = 0; w < 4; w++) {
      T x = (T)step(a, __dadd_rn(b, -a), unit(words[w]));
      out[w] = (double)x < b ? x : top;
    }
    return;
  }
  for (int pair = 0; pair < 4; pair += 2) {
    double radius = sqrt(__dmul_rn(-2.0, log(__dadd_rn(1.0, -unit(words[pair])))));
    double sine, cosine;
    sincos(__dmul_rn(6.283185307179586, unit(words[pair + 1])), &sine, &cosine);
    out[pair] = (T)step(a, b, __dmul_rn(radius, cosine));
    out[pair + 1] = (T)step(a, b, __dmul_rn(radius, sine));
  }
}

#define RANDOM(T, S)                                                                               \
  KERNEL(random_##S)(int distribution, u64 key, double a, double b, T top, Strided<1> s, T *out) { \
    FOR_EACH(block, (s.count + 3) / 4) {                                                           \
      u32 words[4];                                                                                \
      T four[4];                                                                                   \
      philox(key, (u64)block, words);                                                              \
      numbers(distribution, a, b, top, words, four);                                               \
      for (int w = 0; w < 4; w++) {                                                                \
        i64 i = 4 * block + w, at[1];                                                              \
        if (i >= s.count) break;                                                                   \
        locate(s, i, at);                                                                          \
        out[at[0]] = four[w];                                                                      \
      }                                                                                            \
    }                                                                                              \
  }
FOR_FLOATS(RANDOM)
