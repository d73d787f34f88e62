// Sums, maxima and argmax. The order of a sum depends on the shape alone.
#include "common.cuh"

// Codes of `Reduce`; see codes.rs.
enum { SUM, MAX };

// Threads per block, columns per block of `reduce_columns`, and threads per column; see reduce.rs.
#define THREADS 256
#define COLUMNS 32
#define LANES (THREADS / COLUMNS)

template <class W>
__device__ inline W join(int kind, W a, W b) {
  return kind == SUM ? (W)(a + b) : larger(a, b);
}

// Whether `y` exceeds the maximum so far. NaN counts as smaller than any number.
template <class T>
__device__ inline bool exceeds(T y, T top) {
  return y > top || (is_nan(top) && !is_nan(y));
}

// Reduces one number per thread over the block; every thread gets the result. Threads whose index
// is equal modulo `apart` are reduced together, so there are `apart` results.
template <class W>
__device__ inline W join_block(int kind, W mine, W *part, int apart) {
  int me = threadIdx.x;
  part[me] = mine;
  __syncthreads();
  for (int half = THREADS / 2; half >= apart; half /= 2) {
    if (me < half) part[me] = join(kind, part[me], part[me + half]);
    __syncthreads();
  }
  W all = part[me % apart];
  __syncthreads();
  return all;
}

// `s` has one index per result and two operands: the source without the axis, and the result. The
// axis has `n` elements, `stride` apart; n > 0 except for sums.
//
// If there are few results, the axis is divided into sections of `section` elements, none of them
// empty. Each section's partial result is written to `partial`, section by section, and
// `reduce_sections` reduces those. A single section writes the result itself.
#define REDUCE(T, S)                                                                               \
  KERNEL(reduce_##S)(int kind, i64 n, i64 stride, Strided<2> s, const T *x, T *out) {              \
    FOR_EACH(i, s.count) {                                                                         \
      i64 at[2];                                                                                   \
      locate(s, i, at);                                                                            \
      Wide<T>::type sum = n > 0 ? (Wide<T>::type)x[at[0]] : (Wide<T>::type)0;                      \
      for (i64 k = 1; k < n; k++) sum = join(kind, sum, (Wide<T>::type)x[at[0] + k * stride]);     \
      out[at[1]] = (T)sum;                                                                         \
    }                                                                                              \
  }                                                                                                \
  /* A section's elements are distributed over the threads of one block. */                        \
  KERNEL(reduce_rows_##S)(int kind, i64 n, i64 stride, i64 section, i64 sections, Strided<2> s,    \
                          const T *x, T *out, Wide<T>::type *partial) {                            \
    typedef Wide<T>::type W;                                                                       \
    __shared__ W part[THREADS];                                                                    \
    for (i64 block = blockIdx.x; block < s.count * sections; block += gridDim.x) {                 \
      i64 i = block / sections, which = block - i * sections, at[2];                               \
      locate(s, i, at);                                                                            \
      i64 from = which * section, to = from + section < n ? from + section : n;                    \
      /* A thread without elements repeats the section's first element in a maximum. */            \
      i64 first = from + threadIdx.x;                                                              \
      W sum = first < to    ? (W)x[at[0] + first * stride]                                         \
              : kind == SUM ? (W)0                                                                 \
                            : (W)x[at[0] + from * stride];                                         \
      for (i64 k = first + THREADS; k < to; k += THREADS)                                          \
        sum = join(kind, sum, (W)x[at[0] + k * stride]);                                           \
      sum = join_block(kind, sum, part, 1);                                                        \
      if (threadIdx.x == 0) {                                                                      \
        if (sections == 1)                                                                         \
          out[at[1]] = (T)sum;                                                                     \
        else                                                                                       \
          partial[which * s.count + i] = sum;                                                      \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  /* Adjacent results: a block computes COLUMNS of them, with LANES threads for each. */           \
  KERNEL(reduce_columns_##S)(int kind, i64 n, i64 stride, i64 section, i64 sections, Strided<2> s, \
                             const T *x, T *out, Wide<T>::type *partial) {                         \
    typedef Wide<T>::type W;                                                                       \
    __shared__ W part[THREADS];                                                                    \
    int column = threadIdx.x % COLUMNS, lane = threadIdx.x / COLUMNS;                              \
    i64 tiles = (s.count + COLUMNS - 1) / COLUMNS;                                                 \
    for (i64 block = blockIdx.x; block < tiles * sections; block += gridDim.x) {                   \
      i64 which = block / tiles, i = (block - which * tiles) * COLUMNS + column, at[2];            \
      /* Columns past the last one read the last one and write nothing. */                         \
      locate(s, i < s.count ? i : s.count - 1, at);                                                \
      i64 from = which * section, to = from + section < n ? from + section : n;                    \
      i64 first = from + lane;                                                                     \
      W sum = first < to    ? (W)x[at[0] + first * stride]                                         \
              : kind == SUM ? (W)0                                                                 \
                            : (W)x[at[0] + from * stride];                                         \
      for (i64 k = first + LANES; k < to; k += LANES)                                              \
        sum = join(kind, sum, (W)x[at[0] + k * stride]);                                           \
      sum = join_block(kind, sum, part, COLUMNS);                                                  \
      if (lane == 0 && i < s.count) {                                                              \
        if (sections == 1)                                                                         \
          out[at[1]] = (T)sum;                                                                     \
        else                                                                                       \
          partial[which * s.count + i] = sum;                                                      \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  /* The last step: one thread per result. `s` has the result as its only operand. */              \
  KERNEL(reduce_sections_##S)(int kind, i64 sections, const __grid_constant__ Strided<1> s,        \
                              const Wide<T>::type *partial, T *out) {                              \
    FOR_EACH(i, s.count) {                                                                         \
      i64 at[1];                                                                                   \
      locate(s, i, at);                                                                            \
      Wide<T>::type sum = partial[i];                                                              \
      for (i64 k = 1; k < sections; k++) sum = join(kind, sum, partial[k * s.count + i]);          \
      out[at[0]] = (T)sum;                                                                         \
    }                                                                                              \
  }                                                                                                \
  KERNEL(argmax_##S)(i64 n, i64 stride, Strided<2> s, const T *x, i64 *out) {                      \
    FOR_EACH(i, s.count) {                                                                         \
      i64 at[2], best = 0;                                                                         \
      locate(s, i, at);                                                                            \
      T top = x[at[0]];                                                                            \
      for (i64 k = 1; k < n; k++) {                                                                \
        T y = x[at[0] + k * stride];                                                               \
        if (exceeds(y, top)) {                                                                     \
          top = y;                                                                                 \
          best = k;                                                                                \
        }                                                                                          \
      }                                                                                            \
      out[at[1]] = best;                                                                           \
    }                                                                                              \
  }                                                                                                \
  /* Like `argmax`, with one block per result: for few results of many elements. n >= THREADS. */  \
  KERNEL(argmax_rows_##S)(i64 n, i64 stride, Strided<2> s, const T *x, i64 *out) {                 \
    __shared__ T tops[THREADS];                                                                    \
    __shared__ i64 places[THREADS];                                                                \
    int me = threadIdx.x;                                                                          \
    for (i64 i = blockIdx.x; i < s.count; i += gridDim.x) {                                        \
      i64 at[2], best = me;                                                                        \
      locate(s, i, at);                                                                            \
      T top = x[at[0] + me * stride];                                                              \
      for (i64 k = me + THREADS; k < n; k += THREADS) {                                            \
        T y = x[at[0] + k * stride];                                                               \
        if (exceeds(y, top)) {                                                                     \
          top = y;                                                                                 \
          best = k;                                                                                \
        }                                                                                          \
      }                                                                                            \
      tops[me] = top;                                                                              \
      places[me] = best;                                                                           \
      __syncthreads();                                                                             \
      for (int half = THREADS / 2; half > 0; half /= 2) {                                          \
        if (me < half) {                                                                           \
          T y = tops[me + half];                                                                   \
          bool equal = !exceeds(tops[me], y) && places[me + half] < places[me];                    \
          if (exceeds(y, tops[me]) || equal) {                                                     \
            tops[me] = y;                                                                          \
            places[me] = places[me + half];                                                        \
          }                                                                                        \
        }                                                                                          \
        __syncthreads();                                                                           \
      }                                                                                            \
      if (me == 0) out[at[1]] = places[0];                                                         \
      __syncthreads();                                                                             \
    }                                                                                              \
  }

FOR_NUMBERS(REDUCE)

// Elements per partial sum of squares; see reduce.rs.
#define SECTION 16384

// One block sums the squares of a section.
#define SQUARES(T, S)                                                                             \
  KERNEL(squares_##S)(const __grid_constant__ Strided<1> s, const T *x, double *partial) {        \
    __shared__ double part[THREADS];                                                              \
    i64 start = (i64)blockIdx.x * SECTION;                                                        \
    i64 end = start + SECTION < s.count ? start + SECTION : s.count;                              \
    double sum = 0;                                                                               \
    for (i64 i = start + threadIdx.x; i < end; i += THREADS) {                                    \
      i64 at[1];                                                                                  \
      locate(s, i, at);                                                                           \
      double y = (double)x[at[0]];                                                                \
      sum += y * y;                                                                               \
    }                                                                                             \
    sum = join_block(SUM, sum, part, 1);                                                          \
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;                                              \
  }                                                                                               \
  /* One block sums the partial sums. */                                                          \
  KERNEL(sum_partial_##S)(i64 count, const double *partial, const __grid_constant__ Strided<1> s, \
                          T *out) {                                                               \
    __shared__ double part[THREADS];                                                              \
    double sum = 0;                                                                               \
    for (i64 i = threadIdx.x; i < count; i += THREADS) sum += partial[i];                         \
    sum = join_block(SUM, sum, part, 1);                                                          \
    if (threadIdx.x == 0) out[s.offsets[0]] = (T)sum;                                             \
  }
FOR_FLOATS(SQUARES)
