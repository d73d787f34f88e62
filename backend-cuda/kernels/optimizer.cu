// Optimizer steps: one pass over the values and slots of many tensors, in place.
#include "common.cuh"

const int TENSORS = 32;
const int OPERANDS = 4;

// `before`: the number of elements of the tensors before each, and of all in the places after the
// last. `at`: the addresses of the operands of each.
struct Tensors {
  i64 before[TENSORS + 1];
  void *at[TENSORS][OPERANDS];
};

// The tensor of element `i` of all.
__device__ int tensor_of(const Tensors &t, i64 i) {
  int tensor = 0;
  for (int step = TENSORS / 2; step > 0; step /= 2) {
    if (t.before[tensor + step] <= i) tensor += step;
  }
  return tensor;
}

#define OPTIMIZER(T, S)                                                         \
  KERNEL(sgd_##S)(T lr, const __grid_constant__ Tensors t) {                    \
    FOR_EACH(i, t.before[TENSORS]) {                                            \
      int k = tensor_of(t, i);                                                  \
      i64 at = i - t.before[k];                                                 \
      T *w = (T *)t.at[k][0];                                                   \
      const T *g = (const T *)t.at[k][1];                                       \
      w[at] = w[at] - lr * g[at];                                               \
    }                                                                           \
  }                                                                             \
  KERNEL(adam_##S)(T lr, T beta1, T rest1, T beta2, T rest2, T epsilon, T keep, \
                   const __grid_constant__ Tensors t) {                         \
    FOR_EACH(i, t.before[TENSORS]) {                                            \
      int k = tensor_of(t, i);                                                  \
      i64 at = i - t.before[k];                                                 \
      T *w = (T *)t.at[k][0], *m = (T *)t.at[k][1], *v = (T *)t.at[k][2];       \
      T g = ((const T *)t.at[k][3])[at];                                        \
      T first = beta1 * m[at] + rest1 * g;                                      \
      T second = beta2 * v[at] + rest2 * (g * g);                               \
      w[at] = keep * w[at] - lr * first / (sqrt_(second) + epsilon);            \
      m[at] = first;                                                            \
      v[at] = second;                                                           \
    }                                                                           \
  }
FOR_FLOATS(OPTIMIZER)
