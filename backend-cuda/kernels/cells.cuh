// The equations of the recurrent cells, for one unit of one row.
#pragma once
#include "common.cuh"

template <class T>
struct Lstm {
  T i, j, f, o, c, h;
};

// Computes the new state from the four gates before their activations and the old cell state.
template <class T>
__device__ inline Lstm<T> lstm(int act, T forget_bias, T zi, T zj, T zf, T zo, T c) {
  Lstm<T> s;
  s.i = sigmoid_(zi);
  s.j = activate(act, zj);
  s.f = sigmoid_(zf + forget_bias);
  s.o = sigmoid_(zo);
  s.c = c * s.f + s.i * s.j;
  s.h = activate(act, s.c) * s.o;
  return s;
}

template <class T>
struct LstmGrad {
  T zi, zj, zf, zo, c;
};

template <class T>
__device__ inline LstmGrad<T> lstm_grad(int act, T i, T j, T f, T o, T c, T c_new, T dc, T dh) {
  T a = activate(act, c_new);
  dc += activation_grad(act, a, dh * o);
  LstmGrad<T> d;
  d.zi = activation_grad(SIGMOID, i, dc * j);
  d.zj = activation_grad(act, j, dc * i);
  d.zf = activation_grad(SIGMOID, f, dc * c);
  d.zo = activation_grad(SIGMOID, o, dh * a);
  d.c = dc * f;
  return d;
}

template <class T>
__device__ inline T gru_output(T u, T h, T q) {
  return u * h + ((T)1 - u) * q;
}
