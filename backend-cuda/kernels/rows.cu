// Operations that move rows: by the size of an element, whatever its type. An index out of range is
// reported, and its row is zero.
#include "common.cuh"

// Kinds of `Fault`; see fault.rs.
enum { NO_FAULT, GATHER, SCATTER_ADD, REVERSE };

// `s` walks the result: the source with its time axis taken out and the result. `time_stride` is the source's
// stride along time; the place in time and the row of each element come from the two axes' places.
#define WORDS(T, S)                                                            \
  extern "C" __global__ void gather_##S(i64 rows, i64 row_stride, int wide, Strided<3> s, const void *ids, const T *table, T *out, Fault *fault) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 at[3];                                                               \
      locate(s, i, at);                                                        \
      i64 id = integer(ids, wide, at[0]);                                      \
      bool known = id >= 0 && id < rows;                                       \
      if (!known)                                                              \
        report(fault, GATHER, at[0], id, rows);                                \
      out[at[2]] = known ? table[at[1] + id * row_stride] : (T)0;              \
    }                                                                          \
  }                                                                            \
  extern "C" __global__ void reverse_##S(i64 steps, i64 time_inner, i64 time_stride, int wide, Strided<3> s, const void *lengths, const T *x, T *out, Fault *fault) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 at[3];                                                               \
      locate(s, i, at);                                                        \
      i64 length = integer(lengths, wide, at[0]);                              \
      if (length < 0 || length > steps) {                                      \
        report(fault, REVERSE, at[0], length, steps + 1);                      \
        length = 0;                                                            \
      }                                                                        \
      i64 t = i / time_inner % steps;                                          \
      t = t < length ? length - 1 - t : t;                                     \
      out[at[2]] = x[at[1] + t * time_stride];                                 \
    }                                                                          \
  }
FOR_WORDS(WORDS)

// One thread a number of the result, which looks for its row among the ids, so that equal ids add up in order.
#define SCATTER(T, S)                                                          \
  extern "C" __global__ void scatter_add_##S(i64 rows, i64 width, i64 ids_count, int wide, const void *ids, const T *values, Strided<1> s, T *out, Fault *fault) { \
    FOR_EACH(i, s.count) {                                                     \
      i64 row = i / width, column = i % width, at[1];                          \
      T sum = (T)0;                                                            \
      for (i64 k = 0; k < ids_count; k++) {                                    \
        i64 id = integer(ids, wide, k);                                        \
        if (id == row)                                                         \
          sum += values[k * width + column];                                   \
        if (i == 0 && (id < 0 || id >= rows))                                  \
          report(fault, SCATTER_ADD, k, id, rows);                             \
      }                                                                        \
      locate(s, i, at);                                                        \
      out[at[0]] = sum;                                                        \
    }                                                                          \
  }
FOR_FLOATS(SCATTER)
