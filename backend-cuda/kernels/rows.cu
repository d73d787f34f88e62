// Operations that move rows, compiled by element size, not type. An index out of range is reported,
// and its row is zero.
#include "common.cuh"

// Kinds of `Fault`; see fault.rs.
enum { NO_FAULT, GATHER, SCATTER_ADD, REVERSE, LABEL, SCATTER_UPDATE };

// Ids and lengths are in row-major order without gaps, so that the index of one is also its index
// in error messages.
//
// `s` of a reversal has one index per element of the result and three operands: the lengths, the
// source at time 0, the result. `time_stride` is the source's stride along time, `time_inner` the
// number of elements of the result per time step.
#define WORDS(T, S)                                                                       \
  KERNEL(gather_##S)(i64 rows, i64 row_stride, int wide, Strided<3> s, const void *ids,   \
                     const T *table, T *out, Fault *fault) {                              \
    FOR_EACH(i, s.count) {                                                                \
      i64 at[3];                                                                          \
      locate(s, i, at);                                                                   \
      i64 id = integer(ids, wide, at[0]);                                                 \
      bool known = id >= 0 && id < rows;                                                  \
      if (!known) report(fault, GATHER, at[0], id, rows);                                 \
      out[at[2]] = known ? table[at[1] + id * row_stride] : (T)0;                         \
    }                                                                                     \
  }                                                                                       \
  KERNEL(reverse_##S)(i64 steps, i64 time_inner, i64 time_stride, int wide, Strided<3> s, \
                      const void *lengths, const T *x, T *out, Fault *fault) {            \
    FOR_EACH(i, s.count) {                                                                \
      i64 at[3];                                                                          \
      locate(s, i, at);                                                                   \
      i64 length = integer(lengths, wide, at[0]);                                         \
      if (length < 0 || length > steps) {                                                 \
        report(fault, REVERSE, at[0], length, steps + 1);                                 \
        length = 0;                                                                       \
      }                                                                                   \
      i64 t = i / time_inner % steps;                                                     \
      t = t < length ? length - 1 - t : t;                                                \
      out[at[2]] = x[at[1] + t * time_stride];                                            \
    }                                                                                     \
  }
FOR_WORDS(WORDS)

// Threads of the single block of `scatter_links`; see rows.rs.
#define THREADS 256

// For each id, `next` is the index of the next equal id (-1: none), and `first` is whether no
// earlier id is equal. For an id out of range, `next` is -2 and `first` 0. `seen` has one element
// per row of the table and is initially -1.
//
// A single block processes the ids from the last to the first, THREADS at a time. It compares all
// pairs among those, and `seen` holds the index of the first equal id after them. So the work is
// proportional to the number of ids, not to its square, and the result does not depend on the
// schedule.
KERNEL(scatter_links_ids, __launch_bounds__(THREADS))(u32 kind, i64 rows, i64 count, int wide,
                                                      const void *ids, i64 *next, u8 *first,
                                                      i64 *seen, Fault *fault) {
  __shared__ i64 section[THREADS];
  int me = threadIdx.x;
  for (i64 start = (count - 1) / THREADS * THREADS; start >= 0; start -= THREADS) {
    i64 k = start + me, id = k < count ? integer(ids, wide, k) : -1;
    bool known = id >= 0 && id < rows;
    section[me] = known ? id : -1;
    __syncthreads();
    i64 after = -1;
    bool earliest = true;
    for (int other = 0; other < THREADS; other++) {
      if (section[other] != id) continue;
      if (other < me)
        earliest = false;
      else if (other > me && after < 0)
        after = start + other;
    }
    if (known && after < 0) after = seen[id];
    __syncthreads();
    if (known) {
      if (earliest) seen[id] = k;
      next[k] = after;
      first[k] = 0;
    } else if (k < count) {
      report(fault, kind, k, id, rows);
      next[k] = -2;
      first[k] = 0;
    }
    __syncthreads();
  }
  // At the end, `seen` holds the index of the first occurrence of each id.
  for (i64 k = me; k < count; k += THREADS) {
    i64 id = integer(ids, wide, k);
    if (id >= 0 && id < rows && seen[id] == k) first[k] = 1;
  }
}

// One thread per column of each row that is the first of its id: it sums all rows of that id in
// order. The result (the operand of `s`) has been set to 0.
#define SCATTER(T, S)                                                                             \
  KERNEL(scatter_add_##S)(i64 width, i64 count, int wide, const void *ids, const i64 *next,       \
                          const u8 *first, const T *values, const __grid_constant__ Strided<1> s, \
                          T *out) {                                                               \
    FOR_EACH(i, count * width) {                                                                  \
      i64 k = i / width, column = i % width, at[1];                                               \
      if (!first[k]) continue;                                                                    \
      T sum = (T)0;                                                                               \
      for (i64 place = k; place >= 0; place = next[place]) sum += values[place * width + column]; \
      locate(s, integer(ids, wide, k) * width + column, at);                                      \
      out[at[0]] = sum;                                                                           \
    }                                                                                             \
  }
FOR_FLOATS(SCATTER)

// One thread per element of each row that is the last of its id. The result already holds the
// table.
#define UPDATE(T, S)                                                                           \
  KERNEL(scatter_update_##S)(i64 width, i64 count, int wide, const void *ids, const i64 *next, \
                             const T *values, const __grid_constant__ Strided<1> s, T *out) {  \
    FOR_EACH(i, count * width) {                                                               \
      i64 k = i / width, column = i % width, at[1];                                            \
      if (next[k] != -1) continue;                                                             \
      locate(s, integer(ids, wide, k) * width + column, at);                                   \
      out[at[0]] = values[i];                                                                  \
    }                                                                                          \
  }
FOR_WORDS(UPDATE)
