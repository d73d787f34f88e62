// Optimizer steps: one pass over the parameters.
#include "common.cuh"

#define OPTIMIZER(T, S)                                                        \
  KERNEL(sgd_##S)(T lr, Strided<3> s, const T *w, const T *g, T *out) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 at[3];                                                               \
      locate(s, i, at);                                                        \
      out[at[2]] = w[at[0]] - lr * g[at[1]];                                   \
    }                                                                          \
  }                                                                            \
  KERNEL(adam_##S)(T lr, T beta1, T rest1, T beta2, T rest2, T epsilon, Strided<7> s, const T *w, const T *m, const T *v, const T *g, T *w2, T *m2, T *v2) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 at[7];                                                               \
      locate(s, i, at);                                                        \
      T d = g[at[3]];                                                          \
      T first = beta1 * m[at[1]] + rest1 * d;                                  \
      T second = beta2 * v[at[2]] + rest2 * (d * d);                           \
      w2[at[4]] = w[at[0]] - lr * first / (sqrt_(second) + epsilon);           \
      m2[at[5]] = first;                                                       \
      v2[at[6]] = second;                                                      \
    }                                                                          \
  }
FOR_FLOATS(OPTIMIZER)
