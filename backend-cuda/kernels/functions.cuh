// The functions of elements, by code.
#pragma once
#include "common.cuh"

// Codes of `Unary`; see codes.rs. Activations follow from ACTIVATION on.
enum { NEG, ABS, SIGN, SQUARE, SQRT, RECIP, EXP, LOG, FLOOR, SIN, COS, ACTIVATION };

__device__ inline float sin_(float x) { return sinf(x); }
__device__ inline double sin_(double x) { return sin(x); }
__device__ inline float cos_(float x) { return cosf(x); }
__device__ inline double cos_(double x) { return cos(x); }

template <class T>
__device__ T unary(int f, T x) {
  switch (f) {
    case NEG: return -x;
    case ABS: return x < (T)0 ? -x : (x == (T)0 ? (T)0 : x);
    case SIGN: return x > (T)0 ? (T)1 : x < (T)0 ? (T)-1 : x;
    case SQUARE: return x * x;
    case SQRT: return sqrt_(x);
    case RECIP: return (T)1 / x;
    case EXP: return exp_(x);
    case LOG: return log_(x);
    case FLOOR: return floor_(x);
    case SIN: return sin_(x);
    case COS: return cos_(x);
    default: f -= ACTIVATION; return f < COMMON ? activate(f, x) : activate_uncommon(f, x);
  }
}

// Codes of `Binary`; see codes.rs.
enum { ADD, SUB, MUL, DIV, MAX, MIN, FLOOR_MOD };

template <class T>
__device__ T float_binary(int f, T a, T b) {
  switch (f) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case DIV: return a / b;
    case MAX: return larger(a, b);
    case MIN: return smaller(a, b);
    default: {
      T rest = fmod_(a, b);
      return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
    }
  }
}

// Codes of `Compare`; see codes.rs.
enum { EQ, NE, LT, LE, GT, GE };

template <class T>
__device__ u8 compare(int f, T a, T b) {
  switch (f) {
    case EQ: return a == b;
    case NE: return a != b;
    case LT: return a < b;
    case LE: return a <= b;
    case GT: return a > b;
    default: return a >= b;
  }
}
