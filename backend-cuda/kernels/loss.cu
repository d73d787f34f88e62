// Softmax cross-entropy and its gradient: one block per row of logits.
#include "common.cuh"

// Threads per block; see loss.rs.
#define THREADS 128
// Kind of `Fault`; see fault.rs.
#define LABEL 4

// The largest logit of a row and the sum of the exponentials, returned to every thread of the
// block.
template <class T>
__device__ void soft(i64 classes, const T *row, T *part, T &top, T &sum) {
  int me = threadIdx.x;
  T best = row[0];
  for (i64 k = me; k < classes; k += THREADS) best = larger(best, row[k]);
  part[me] = best;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (me < half) part[me] = larger(part[me], part[me + half]);
    __syncthreads();
  }
  top = part[0];
  __syncthreads();
  T mine = (T)0;
  for (i64 k = me; k < classes; k += THREADS) mine += exp_(row[k] - top);
  part[me] = mine;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (me < half) part[me] += part[me + half];
    __syncthreads();
  }
  sum = part[0];
  __syncthreads();
}

// `stride`: elements from one row of logits to the next. `s` has one index per row and two
// operands: the labels and the result, in the gradient the labels and the gradient of the loss.
#define LOSS(T, S)                                                                               \
  KERNEL(softmax_cross_entropy_##S)(i64 classes, i64 stride, int wide, Strided<2> s,             \
                                    const T *logits, const void *labels, T *out, Fault *fault) { \
    __shared__ T part[THREADS];                                                                  \
    for (i64 i = blockIdx.x; i < s.count; i += gridDim.x) {                                      \
      const T *row = logits + i * stride;                                                        \
      T top, sum;                                                                                \
      soft(classes, row, part, top, sum);                                                        \
      if (threadIdx.x == 0) {                                                                    \
        i64 at[2];                                                                               \
        locate(s, i, at);                                                                        \
        i64 label = integer(labels, wide, at[0]);                                                \
        bool known = label >= 0 && label < classes;                                              \
        if (!known) report(fault, LABEL, i, label, classes);                                     \
        out[at[1]] = known ? log_(sum) + (top - row[label]) : (T)0 / (T)0;                       \
      }                                                                                          \
    }                                                                                            \
  }                                                                                              \
  /* The result's rows are `out_stride` elements apart; the elements of a row are adjacent. */   \
  KERNEL(softmax_cross_entropy_grad_##S)(i64 classes, i64 stride, i64 out_stride, int wide,      \
                                         Strided<2> s, const T *logits, const void *labels,      \
                                         const T *dloss, T *out, Fault *fault) {                 \
    __shared__ T part[THREADS];                                                                  \
    for (i64 i = blockIdx.x; i < s.count; i += gridDim.x) {                                      \
      const T *row = logits + i * stride;                                                        \
      T top, sum;                                                                                \
      soft(classes, row, part, top, sum);                                                        \
      i64 at[2];                                                                                 \
      locate(s, i, at);                                                                          \
      i64 label = integer(labels, wide, at[0]);                                                  \
      bool known = label >= 0 && label < classes;                                                \
      if (!known && threadIdx.x == 0) report(fault, LABEL, i, label, classes);                   \
      T d = dloss[at[1]], scale = d / sum;                                                       \
      for (i64 k = threadIdx.x; k < classes; k += THREADS) {                                     \
        T p = exp_(row[k] - top) * scale;                                                        \
        out[i * out_stride + k] = known ? (k == label ? p - d : p) : (T)0 / (T)0;                \
      }                                                                                          \
    }                                                                                            \
  }
FOR_FLOATS(LOSS)
