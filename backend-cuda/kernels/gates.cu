// Single steps of the LSTM and the GRU: one thread per unit of a row. Operands are matrices whose
// rows are any distance apart, with the elements of a row adjacent.
#include "cells.cuh"

// Mirrors `Rows` in gates.rs.
template <class T>
struct Rows {
  T *first;
  i64 stride;
  __device__ T &at(i64 row, i64 column) const { return first[row * stride + column]; }
};

#define GATES(T, S)                                                                                \
  KERNEL(lstm_step_##S)(i64 batch, i64 n, int act, T forget_bias, Rows<T> z, Rows<T> c,            \
                        Rows<T> c2, Rows<T> h2, Rows<T> gates) {                                   \
    FOR_EACH(i, batch * n) {                                                                       \
      i64 b = i / n, u = i % n;                                                                    \
      Lstm<T> s = lstm<T>(act, forget_bias, z.at(b, u), z.at(b, n + u), z.at(b, 2 * n + u),        \
                          z.at(b, 3 * n + u), c.at(b, u));                                         \
      c2.at(b, u) = s.c;                                                                           \
      h2.at(b, u) = s.h;                                                                           \
      gates.at(b, u) = s.i;                                                                        \
      gates.at(b, n + u) = s.j;                                                                    \
      gates.at(b, 2 * n + u) = s.f;                                                                \
      gates.at(b, 3 * n + u) = s.o;                                                                \
    }                                                                                              \
  }                                                                                                \
  KERNEL(lstm_step_grad_##S)(i64 batch, i64 n, int act, Rows<T> gates, Rows<T> c, Rows<T> c2,      \
                             Rows<T> dc, Rows<T> dh, Rows<T> dz, Rows<T> dc0) {                    \
    FOR_EACH(i, batch * n) {                                                                       \
      i64 b = i / n, u = i % n;                                                                    \
      LstmGrad<T> d =                                                                              \
          lstm_grad<T>(act, gates.at(b, u), gates.at(b, n + u), gates.at(b, 2 * n + u),            \
                       gates.at(b, 3 * n + u), c.at(b, u), c2.at(b, u), dc.at(b, u), dh.at(b, u)); \
      dz.at(b, u) = d.zi;                                                                          \
      dz.at(b, n + u) = d.zj;                                                                      \
      dz.at(b, 2 * n + u) = d.zf;                                                                  \
      dz.at(b, 3 * n + u) = d.zo;                                                                  \
      dc0.at(b, u) = d.c;                                                                          \
    }                                                                                              \
  }                                                                                                \
  KERNEL(gru_gates_##S)(i64 batch, i64 n, Rows<T> z, Rows<T> h, Rows<T> update, Rows<T> rh,        \
                        Rows<T> reset) {                                                           \
    FOR_EACH(i, batch * n) {                                                                       \
      i64 b = i / n, u = i % n;                                                                    \
      T r = sigmoid_(z.at(b, u));                                                                  \
      update.at(b, u) = sigmoid_(z.at(b, n + u));                                                  \
      rh.at(b, u) = r * h.at(b, u);                                                                \
      reset.at(b, u) = r;                                                                          \
    }                                                                                              \
  }                                                                                                \
  KERNEL(gru_gates_grad_##S)(i64 batch, i64 n, Rows<T> reset, Rows<T> update, Rows<T> h,           \
                             Rows<T> du, Rows<T> drh, Rows<T> dz, Rows<T> dh) {                    \
    FOR_EACH(i, batch * n) {                                                                       \
      i64 b = i / n, u = i % n;                                                                    \
      T r = reset.at(b, u), d = drh.at(b, u);                                                      \
      dz.at(b, u) = activation_grad(SIGMOID, r, d * h.at(b, u));                                   \
      dz.at(b, n + u) = activation_grad(SIGMOID, update.at(b, u), du.at(b, u));                    \
      dh.at(b, u) = d * r;                                                                         \
    }                                                                                              \
  }                                                                                                \
  KERNEL(gru_output_##S)(i64 batch, i64 n, int act, Rows<T> z, Rows<T> update, Rows<T> h,          \
                         Rows<T> h2, Rows<T> candidate) {                                          \
    FOR_EACH(i, batch * n) {                                                                       \
      i64 b = i / n, u = i % n;                                                                    \
      T q = activate(act, z.at(b, u));                                                             \
      h2.at(b, u) = gru_output(update.at(b, u), h.at(b, u), q);                                    \
      candidate.at(b, u) = q;                                                                      \
    }                                                                                              \
  }                                                                                                \
  KERNEL(gru_output_grad_##S)(i64 batch, i64 n, int act, Rows<T> candidate, Rows<T> update,        \
                              Rows<T> h, Rows<T> dh2, Rows<T> dz, Rows<T> du, Rows<T> dh) {        \
    FOR_EACH(i, batch * n) {                                                                       \
      i64 b = i / n, k = i % n;                                                                    \
      T q = candidate.at(b, k), u = update.at(b, k), d = dh2.at(b, k);                             \
      dz.at(b, k) = activation_grad(act, q, ((T)1 - u) * d);                                       \
      du.at(b, k) = (h.at(b, k) - q) * d;                                                          \
      dh.at(b, k) = u * d;                                                                         \
    }                                                                                              \
  }
FOR_FLOATS(GATES)
