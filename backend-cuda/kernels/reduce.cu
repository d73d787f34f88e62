// Sums, maxima and where they are. The order of a sum depends on the shape alone.
#include "common.cuh"

// What sums are accumulated in: the element type or wider.
template <class T> struct Wide { typedef T type; };
template <> struct Wide<float> { typedef double type; };

// Codes of `Reduce`; see codes.rs.
enum { SUM, MAX };

// Threads of a block that works on one result; see reduce.rs.
#define THREADS 256

template <class W> __device__ inline W join(int kind, W a, W b) {
  return kind == SUM ? (W)(a + b) : larger(a, b);
}

// `s` walks the results: the source with the axis taken out, and the result. Along the axis there are `n`
// elements, `stride` apart; n > 0, but for sums.
#define REDUCE(T, S)                                                           \
  extern "C" __global__ void reduce_##S(int kind, i64 n, i64 stride, Strided<2> s, const T *x, T *out) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 at[2];                                                               \
      locate(s, i, at);                                                        \
      Wide<T>::type sum = n > 0 ? (Wide<T>::type)x[at[0]] : (Wide<T>::type)0;  \
      for (i64 k = 1; k < n; k++)                                              \
        sum = join(kind, sum, (Wide<T>::type)x[at[0] + k * stride]);           \
      out[at[1]] = (T)sum;                                                     \
    }                                                                          \
  }                                                                            \
  /* The same with a block for each result: for few results of many elements. n >= THREADS. */ \
  extern "C" __global__ void reduce_block_##S(int kind, i64 n, i64 stride, Strided<2> s, const T *x, T *out) { \
    typedef Wide<T>::type W;                                                   \
    __shared__ W part[THREADS];                                                \
    int me = threadIdx.x;                                                      \
    for (i64 i = blockIdx.x; i < s.count; i += gridDim.x) {                    \
      i64 at[2];                                                               \
      locate(s, i, at);                                                        \
      W sum = (W)x[at[0] + me * stride];                                       \
      for (i64 k = me + THREADS; k < n; k += THREADS)                          \
        sum = join(kind, sum, (W)x[at[0] + k * stride]);                       \
      part[me] = sum;                                                          \
      __syncthreads();                                                         \
      for (int half = THREADS / 2; half > 0; half /= 2) {                      \
        if (me < half)                                                         \
          part[me] = join(kind, part[me], part[me + half]);                    \
        __syncthreads();                                                       \
      }                                                                        \
      if (me == 0)                                                             \
        out[at[1]] = (T)part[0];                                               \
      __syncthreads();                                                         \
    }                                                                          \
  }                                                                            \
  extern "C" __global__ void argmax_##S(i64 n, i64 stride, Strided<2> s, const T *x, i64 *out) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 at[2], best = 0;                                                     \
      locate(s, i, at);                                                        \
      T top = x[at[0]];                                                        \
      for (i64 k = 1; k < n; k++) {                                            \
        T y = x[at[0] + k * stride];                                           \
        if (y > top || (is_nan(top) && !is_nan(y))) {                          \
          top = y;                                                             \
          best = k;                                                            \
        }                                                                      \
      }                                                                        \
      out[at[1]] = best;                                                       \
    }                                                                          \
  }
FOR_NUMBERS(REDUCE)

// Elements of a partial sum of squares; see reduce.rs.
#define SECTION 16384

// One block adds up the squares of a section.
#define SQUARES(T, S)                                                          \
  extern "C" __global__ void squares_##S(Strided<1> s, const T *x, double *partial) { \
    __shared__ double part[THREADS];                                           \
    int me = threadIdx.x;                                                      \
    i64 start = (i64)blockIdx.x * SECTION;                                     \
    i64 end = start + SECTION < s.count ? start + SECTION : s.count;           \
    double sum = 0;                                                            \
    for (i64 i = start + me; i < end; i += THREADS) {                          \
      i64 at[1];                                                               \
      locate(s, i, at);                                                        \
      double y = (double)x[at[0]];                                             \
      sum += y * y;                                                            \
    }                                                                          \
    part[me] = sum;                                                            \
    __syncthreads();                                                           \
    for (int half = THREADS / 2; half > 0; half /= 2) {                        \
      if (me < half)                                                           \
        part[me] += part[me + half];                                           \
      __syncthreads();                                                         \
    }                                                                          \
    if (me == 0)                                                               \
      partial[blockIdx.x] = part[0];                                           \
  }                                                                            \
  /* One block adds up the partial sums. */                                    \
  extern "C" __global__ void sum_partial_##S(i64 count, const double *partial, Strided<1> s, T *out) { \
    __shared__ double part[THREADS];                                           \
    int me = threadIdx.x;                                                      \
    double sum = 0;                                                            \
    for (i64 i = me; i < count; i += THREADS)                                  \
      sum += partial[i];                                                       \
    part[me] = sum;                                                            \
    __syncthreads();                                                           \
    for (int half = THREADS / 2; half > 0; half /= 2) {                        \
      if (me < half)                                                           \
        part[me] += part[me + half];                                           \
      __syncthreads();                                                         \
    }                                                                          \
    if (me == 0)                                                               \
      out[s.offsets[0]] = (T)part[0];                                          \
  }
FOR_FLOATS(SQUARES)
