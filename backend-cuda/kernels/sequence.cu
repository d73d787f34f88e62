// The steps of whole sequences on the stepwise path: between two matmuls, one kernel does
// everything else.
//
// A kernel's argument is its offset in a chunk of steps. It reads the first step of the chunk and
// the addresses of the operands from device memory, so that a chunk is recorded once and replayed
// for any sequence.
#include "cells.cuh"

// Mirrors `Sequence` in sequence.rs. The address of an absent result is 0.
template <class T> struct Sequence {
  i64 first, batch, units;
  const void *lengths; // [B] or 0
  i64 wide;
  const T *z;     // [T, B, gates n], undefined past a row's end (may be NaN)
  T *work;        // [B, gates n]: the step's recurrent products
  T *c, *h, *rh;  // [B, n]: the state, and the operand of a GRU's candidate kernel
  T *y;           // [T, B, n]
  T *gates;       // [T, B, gates n] or 0; 0 past a row's end
  T *cs;          // [T, B, n] or 0
};

template <class T> struct SequenceGrad {
  i64 first, batch, units;
  const void *lengths;
  i64 wide;
  const T *c0, *h0;            // [B, n]
  const T *y, *gates, *cs, *dy; // [T, ..]
  T *dz;                       // [T, B, gates n]
  T *work;                     // [B, gates n]: dz of the step
  T *dc, *dh;                  // [B, n]: gradient of the state
  T *drh, *du;                 // [B, n]: within a GRU step
};

template <class S> __device__ inline bool runs(const S *s, i64 t, i64 row) {
  return s->lengths == 0 || t < integer(s->lengths, (int)s->wide, row);
}

// One thread writes the description, which is a kernel argument, so the host waits for no copy.
// `advance` moves the sequence on by a chunk.
#define ADVANCE(T, S)                                                          \
  KERNEL(sequence_describe_##S)(Sequence<T> *s, Sequence<T> described) { *s = described; } \
  KERNEL(sequence_grad_describe_##S)(SequenceGrad<T> *s, SequenceGrad<T> described) { *s = described; } \
  KERNEL(sequence_advance_##S)(Sequence<T> *s, i64 steps) { s->first += steps; } \
  KERNEL(sequence_grad_advance_##S)(SequenceGrad<T> *s, i64 steps) { s->first -= steps; }
FOR_FLOATS(ADVANCE)

#define FORWARD(T, S)                                                          \
  KERNEL(basic_sequence_step_##S)(Sequence<T> *s, int offset, int act) { \
    i64 n = s->units, t = s->first + offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      T h = activate(act, s->work[i] + s->z[t * size + i]);                    \
      bool live = runs(s, t, i / n);                                           \
      if (live)                                                                \
        s->h[i] = h;                                                           \
      s->y[t * size + i] = live ? h : (T)0;                                    \
    }                                                                          \
  }                                                                            \
  KERNEL(lstm_sequence_step_##S)(Sequence<T> *s, int offset, int act, T forget_bias) { \
    i64 n = s->units, t = s->first + offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      i64 b = i / n, at = b * 4 * n + i % n;                                   \
      const T *r = s->work + at, *x = s->z + 4 * t * size + at;                \
      T c = s->c[i];                                                           \
      Lstm<T> k = lstm<T>(act, forget_bias, r[0] + x[0], r[n] + x[n], r[2 * n] + x[2 * n], r[3 * n] + x[3 * n], c); \
      bool live = runs(s, t, b);                                               \
      if (live) {                                                              \
        s->c[i] = k.c;                                                         \
        s->h[i] = k.h;                                                         \
      }                                                                        \
      s->y[t * size + i] = live ? k.h : (T)0;                                  \
      if (s->gates) {                                                          \
        T *g = s->gates + 4 * t * size + at;                                   \
        g[0] = live ? k.i : (T)0;                                              \
        g[n] = live ? k.j : (T)0;                                              \
        g[2 * n] = live ? k.f : (T)0;                                          \
        g[3 * n] = live ? k.o : (T)0;                                          \
        s->cs[t * size + i] = live ? k.c : c;                                  \
      }                                                                        \
    }                                                                          \
  }                                                                            \
  KERNEL(gru_sequence_gates_##S)(Sequence<T> *s, int offset) { \
    i64 n = s->units, t = s->first + offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      i64 at = i / n * 3 * n + i % n;                                          \
      T *w = s->work + at;                                                     \
      const T *x = s->z + 3 * t * size + at;                                   \
      T r = sigmoid_(w[0] + x[0]), u = sigmoid_(w[n] + x[n]);                  \
      w[0] = r;                                                                \
      w[n] = u;                                                                \
      s->rh[i] = r * s->h[i];                                                  \
    }                                                                          \
  }                                                                            \
  KERNEL(gru_sequence_output_##S)(Sequence<T> *s, int offset, int act) { \
    i64 n = s->units, t = s->first + offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      i64 b = i / n, at = b * 3 * n + i % n;                                   \
      const T *w = s->work + at;                                               \
      T q = activate(act, w[2 * n] + s->z[3 * t * size + at + 2 * n]);         \
      T h = gru_output(w[n], s->h[i], q);                                      \
      bool live = runs(s, t, b);                                               \
      if (live)                                                                \
        s->h[i] = h;                                                           \
      s->y[t * size + i] = live ? h : (T)0;                                    \
      if (s->gates) {                                                          \
        T *g = s->gates + 3 * t * size + at;                                   \
        g[0] = live ? w[0] : (T)0;                                             \
        g[n] = live ? w[n] : (T)0;                                             \
        g[2 * n] = live ? q : (T)0;                                            \
      }                                                                        \
    }                                                                          \
  }
FOR_FLOATS(FORWARD)

// If a row has ended, the gradient of its state passes through. Otherwise `dh` becomes the part
// that bypasses the recurrent product; the matmul after this kernel accumulates the rest.
#define BACKWARD(T, S)                                                         \
  KERNEL(basic_sequence_step_grad_##S)(SequenceGrad<T> *s, int offset, int act) { \
    i64 n = s->units, t = s->first - offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      bool live = runs(s, t, i / n);                                           \
      T dz = live ? activation_grad(act, s->y[t * size + i], s->dh[i] + s->dy[t * size + i]) : (T)0; \
      s->work[i] = dz;                                                         \
      s->dz[t * size + i] = dz;                                                \
      if (live)                                                                \
        s->dh[i] = (T)0;                                                       \
    }                                                                          \
  }                                                                            \
  KERNEL(lstm_sequence_step_grad_##S)(SequenceGrad<T> *s, int offset, int act) { \
    i64 n = s->units, t = s->first - offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      i64 b = i / n, at = b * 4 * n + i % n;                                   \
      bool live = runs(s, t, b);                                               \
      LstmGrad<T> d = {(T)0, (T)0, (T)0, (T)0, (T)0};                          \
      if (live) {                                                              \
        const T *g = s->gates + 4 * t * size + at;                             \
        T c = t > 0 ? s->cs[(t - 1) * size + i] : s->c0[i];                    \
        d = lstm_grad<T>(act, g[0], g[n], g[2 * n], g[3 * n], c, s->cs[t * size + i], s->dc[i], s->dh[i] + s->dy[t * size + i]); \
        s->dc[i] = d.c;                                                        \
        s->dh[i] = (T)0;                                                       \
      }                                                                        \
      T *w = s->work + at, *dz = s->dz + 4 * t * size + at;                    \
      w[0] = dz[0] = d.zi;                                                     \
      w[n] = dz[n] = d.zj;                                                     \
      w[2 * n] = dz[2 * n] = d.zf;                                             \
      w[3 * n] = dz[3 * n] = d.zo;                                             \
    }                                                                          \
  }                                                                            \
  KERNEL(gru_sequence_output_grad_##S)(SequenceGrad<T> *s, int offset, int act) { \
    i64 n = s->units, t = s->first - offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      i64 b = i / n, at = b * 3 * n + i % n;                                   \
      bool live = runs(s, t, b);                                               \
      T dz = (T)0, du = (T)0;                                                  \
      if (live) {                                                              \
        const T *g = s->gates + 3 * t * size + at;                             \
        T u = g[n], q = g[2 * n], d = s->dh[i] + s->dy[t * size + i];          \
        T h = t > 0 ? s->y[(t - 1) * size + i] : s->h0[i];                     \
        dz = activation_grad(act, q, ((T)1 - u) * d);                          \
        du = (h - q) * d;                                                      \
        s->dh[i] = u * d;                                                      \
      }                                                                        \
      s->work[at + 2 * n] = dz;                                                \
      s->dz[3 * t * size + at + 2 * n] = dz;                                   \
      s->du[i] = du;                                                           \
    }                                                                          \
  }                                                                            \
  KERNEL(gru_sequence_gates_grad_##S)(SequenceGrad<T> *s, int offset) { \
    i64 n = s->units, t = s->first - offset, size = s->batch * n;              \
    FOR_EACH(i, size) {                                                        \
      i64 b = i / n, at = b * 3 * n + i % n;                                   \
      T dr = (T)0, du = (T)0;                                                  \
      if (runs(s, t, b)) {                                                     \
        const T *g = s->gates + 3 * t * size + at;                             \
        T h = t > 0 ? s->y[(t - 1) * size + i] : s->h0[i];                     \
        dr = activation_grad(SIGMOID, g[0], s->drh[i] * h);                    \
        du = activation_grad(SIGMOID, g[n], s->du[i]);                         \
        s->dh[i] += s->drh[i] * g[0];                                          \
      }                                                                        \
      T *w = s->work + at, *dz = s->dz + 3 * t * size + at;                    \
      w[0] = dz[0] = dr;                                                       \
      w[n] = dz[n] = du;                                                       \
    }                                                                          \
  }                                                                            \
  /* After all steps: `rh` of each step, the operand of the candidate's kernel. [T, B, n] */ \
  KERNEL(gru_sequence_reset_##S)(i64 steps, i64 size, i64 n, const T *gates, const T *h0, const T *y, T *rh) { \
    FOR_EACH(i, steps * size) {                                                \
      T h = i < size ? h0[i] : y[i - size];                                    \
      rh[i] = gates[i / n * 3 * n + i % n] * h;                                \
    }                                                                          \
  }
FOR_FLOATS(BACKWARD)
