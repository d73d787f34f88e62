// Operations that move rows: by the size of an element, whatever its type. An index out of range is
// reported, and its row is zero.
#include "common.cuh"

// Kinds of `Fault`; see fault.rs.
enum { NO_FAULT, GATHER, SCATTER_ADD, REVERSE, LABEL, SCATTER_UPDATE };

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

// For each id the next place that has it too (-1: none), and whether no place before has it. An id out of range is in
// neither: `next` is -2.
extern "C" __global__ void scatter_links_ids(u32 kind, i64 rows, i64 count, int wide, const void *ids, i64 *next, u8 *first, Fault *fault) {
  FOR_EACH(k, count) {
    i64 id = integer(ids, wide, k), after = k + 1, before = k - 1;
    if (id < 0 || id >= rows) {
      report(fault, kind, k, id, rows);
      next[k] = -2;
      first[k] = 0;
      continue;
    }
    while (after < count && integer(ids, wide, after) != id)
      after++;
    while (before >= 0 && integer(ids, wide, before) != id)
      before--;
    next[k] = after < count ? after : -1;
    first[k] = before < 0;
  }
}

// One thread a column of a row that is the first of its id: it adds up all of them in order. The result, which `s` walks,
// was set to 0.
#define SCATTER(T, S)                                                          \
  extern "C" __global__ void scatter_add_##S(i64 width, i64 count, int wide, const void *ids, const i64 *next, const u8 *first, const T *values, Strided<1> s, T *out) { \
    FOR_EACH(i, count * width) {                                               \
      i64 k = i / width, column = i % width, at[1];                            \
      if (!first[k])                                                           \
        continue;                                                              \
      T sum = (T)0;                                                            \
      for (i64 place = k; place >= 0; place = next[place])                     \
        sum += values[place * width + column];                                 \
      locate(s, integer(ids, wide, k) * width + column, at);                   \
      out[at[0]] = sum;                                                        \
    }                                                                          \
  }
FOR_FLOATS(SCATTER)

// One thread an element of a row that is the last of its id. The result holds the table already.
#define UPDATE(T, S)                                                           \
  extern "C" __global__ void scatter_update_##S(i64 width, i64 count, int wide, const void *ids, const i64 *next, const T *values, Strided<1> s, T *out) { \
    FOR_EACH(i, count * width) {                                               \
      i64 k = i / width, column = i % width, at[1];                            \
      if (next[k] != -1)                                                       \
        continue;                                                              \
      locate(s, integer(ids, wide, k) * width + column, at);                   \
      out[at[0]] = values[i];                                                  \
    }                                                                          \
  }
FOR_WORDS(UPDATE)
