// A whole LSTM sequence in one launch: recurrent weights stay in shared memory, cell states in
// registers.
//
// Rows of a batch are independent, so the batch is divided into groups of rows, each computed by
// `per` blocks. A block of a group owns UNITS hidden units with all their gates. Each block needs
// the whole hidden state of its rows, so the blocks of a group synchronise once per step and
// exchange the state through the output. All blocks must be resident: the launch must be
// cooperative.
//
// After "Persistent RNNs" (Diamos et al. 2016), but with one barrier per small group instead of one
// over the grid.
#include "cells.cuh"
#include "prim.cuh"

// Threads per block, rows per tile, rows per thread; see persistent.rs.
#define THREADS 256
#define TILE 16
#define ROWS 4
// Maximum tiles per block: their cell states are in registers.
#define TILES 4
// Floats from one unit of the transposed state to the next: padded, and a multiple of 4.
#define PITCH (TILE + 4)

// State loads of a thread that are in flight at once: the load takes one trip to the second-level
// cache for each.
#define FLIGHT 16

// `y`, `gates` and `cs` as in `Sequence` of persistent.rs. `arrivals`: one counter per group,
// initially 0.
template <int UNITS, int ACT>
__device__ void lstm_persistent(int steps, int batch, int n, int per, int tiles, float forget_bias,
                                const float *z, const float *kernel, i64 kernel_stride,
                                const void *lengths, int wide, const float *c0, const float *h0,
                                float *c1, float *h1, float *y, float *gates, float *cs,
                                unsigned *arrivals, float *shared) {
  const int SLICES = THREADS / (UNITS * (TILE / ROWS));
  float *weights = shared;                 // [n][UNITS][4]
  float *state = weights + n * UNITS * 4;  // [n][PITCH]
  float *partial = state + n * PITCH;      // [SLICES][4 gates][TILE][UNITS]
  int me = threadIdx.x;
  int group = blockIdx.x / per;
  int u0 = (blockIdx.x % per) * UNITS;
  int b0 = group * tiles * TILE;
  int end = b0 + tiles * TILE < batch ? b0 + tiles * TILE : batch;

  for (int i = me; i < n * UNITS * 4; i += THREADS) {
    int k = i / (UNITS * 4), u = i / 4 % UNITS, gate = i % 4;
    weights[i] = u0 + u < n ? kernel[k * kernel_stride + gate * n + u0 + u] : 0.f;
  }
  // The number of steps of the group's longest row.
  int last = lengths == 0 ? steps : 0;
  if (lengths != 0) {
    for (int b = b0; b < end; b++) {
      i64 length = integer(lengths, wide, b);
      last = length > last ? (int)(length < steps ? length : steps) : last;
    }
  }
  // When multiplying, a thread has one unit, ROWS rows and a slice of the state. When finishing, it
  // has one unit of one row.
  int unit = me % UNITS, quad = me / UNITS % (TILE / ROWS), slice = me / UNITS / (TILE / ROWS);
  int from = n * slice / SLICES, to = n * (slice + 1) / SLICES;
  int row = me / UNITS;
  bool finishes = row < TILE && u0 + unit < n;
  float c[TILES], h[TILES];
  i64 length[TILES];
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
    int b = b0 + tile * TILE + row;
    bool mine = finishes && tile < tiles && b < end;
    c[tile] = mine ? c0[(i64)b * n + u0 + unit] : 0.f;
    h[tile] = mine ? h0[(i64)b * n + u0 + unit] : 0.f;
    length[tile] = !mine ? 0 : lengths == 0 ? steps : integer(lengths, wide, b);
  }

  for (int t = 0; t < steps; t++) {
    const float *before = t == 0 ? h0 : y + (i64)(t - 1) * batch * n;
    bool running = t < last;
    // The projected inputs arrive while the block waits and multiplies.
    float x[TILES][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      int b = b0 + tile * TILE + row;
      bool mine = running && finishes && tile < tiles && b < end;
      const float *from_z = z + ((i64)t * batch + b) * 4 * n + u0 + unit;
      for (int gate = 0; gate < 4; gate++) x[tile][gate] = mine ? from_z[gate * n] : 0.f;
    }
    // Waits for the other blocks' part of the state. The other threads wait for this one at the
    // first `__syncthreads` below.
    if (running && t > 0 && me == 0) {
      while (ld_acquire(arrivals + group) < (unsigned)t * per) __nanosleep(20);
    }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      if (tile >= tiles) break;
      int first = b0 + tile * TILE;
      int b = first + row;
      if (running) {
        // Loads the rows' hidden state, transposed. Past a row's end it is 0 in the output; the
        // gates computed from it are not used.
        __syncthreads();
        // A warp reads 8 adjacent units of 4 rows: whole sectors to read, and no bank conflicts
        // when it writes to shared memory.
        int r = me / 32 % (TILE / 4) * 4 + me % 32 / 8;
        int k = me / (TILE * 8) * 8 + me % 8;
        const int APART = THREADS / TILE;
        if (first + r < end) {
          const float *source = before + (i64)(first + r) * n;
          for (; k + (FLIGHT - 1) * APART < n; k += FLIGHT * APART) {
            float v[FLIGHT];
#pragma unroll
            for (int q = 0; q < FLIGHT; q++) v[q] = __ldcg(source + k + q * APART);
#pragma unroll
            for (int q = 0; q < FLIGHT; q++) state[(k + q * APART) * PITCH + r] = v[q];
          }
          for (; k < n; k += APART) state[k * PITCH + r] = __ldcg(source + k);
        } else {
          for (; k < n; k += APART) state[k * PITCH + r] = 0.f;
        }
        __syncthreads();
        float sum[4][ROWS];
        for (int gate = 0; gate < 4; gate++)
          for (int r = 0; r < ROWS; r++) sum[gate][r] = 0.f;
        for (int k = from; k < to; k++) {
          float4 w = ((const float4 *)weights)[k * UNITS + unit];
          float4 x = *(const float4 *)(state + k * PITCH + quad * ROWS);
          sum[0][0] += w.x * x.x;
          sum[0][1] += w.x * x.y;
          sum[0][2] += w.x * x.z;
          sum[0][3] += w.x * x.w;
          sum[1][0] += w.y * x.x;
          sum[1][1] += w.y * x.y;
          sum[1][2] += w.y * x.z;
          sum[1][3] += w.y * x.w;
          sum[2][0] += w.z * x.x;
          sum[2][1] += w.z * x.y;
          sum[2][2] += w.z * x.z;
          sum[2][3] += w.z * x.w;
          sum[3][0] += w.w * x.x;
          sum[3][1] += w.w * x.y;
          sum[3][2] += w.w * x.z;
          sum[3][3] += w.w * x.w;
        }
        for (int gate = 0; gate < 4; gate++)
          for (int r = 0; r < ROWS; r++)
            partial[((slice * 4 + gate) * TILE + quad * ROWS + r) * UNITS + unit] = sum[gate][r];
        __syncthreads();
      }
      if (!(finishes && b < end)) continue;
      bool live = t < length[tile];
      if (running) {
        float *a = x[tile];
        for (int gate = 0; gate < 4; gate++)
          for (int s = 0; s < SLICES; s++)
            a[gate] += partial[((s * 4 + gate) * TILE + row) * UNITS + unit];
        Lstm<float> k = lstm<float>(ACT, forget_bias, a[0], a[1], a[2], a[3], c[tile]);
        a[0] = live ? k.i : 0.f;
        a[1] = live ? k.j : 0.f;
        a[2] = live ? k.f : 0.f;
        a[3] = live ? k.o : 0.f;
        if (live) {
          c[tile] = k.c;
          h[tile] = k.h;
        }
      }
      y[((i64)t * batch + b) * n + u0 + unit] = live ? h[tile] : 0.f;
    }
    if (t + 1 < last) {
      __syncthreads();
      if (me == 0) add_release(arrivals + group, 1u);
    }
    // What the gradient needs is stored after the arrival, for which the other blocks wait. Past
    // the end of the rows the gates are not used, but must be finite.
    if (gates) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
        int b = b0 + tile * TILE + row;
        if (!(finishes && tile < tiles && b < end)) continue;
        float *g = gates + ((i64)t * batch + b) * 4 * n + u0 + unit;
        for (int gate = 0; gate < 4; gate++) g[gate * n] = x[tile][gate];
        cs[((i64)t * batch + b) * n + u0 + unit] = c[tile];
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
    int b = b0 + tile * TILE + row;
    if (finishes && tile < tiles && b < end) {
      c1[(i64)b * n + u0 + unit] = c[tile];
      h1[(i64)b * n + u0 + unit] = h[tile];
    }
  }
}

#define PERSISTENT(UNITS, ACT, name)                                                          \
  KERNEL(lstm_persistent_u##UNITS##_##name, __launch_bounds__(THREADS, 1))(                   \
      int steps, int batch, int n, int per, int tiles, float forget_bias, const float *z,     \
      const float *kernel, i64 kernel_stride, const void *lengths, int wide, const float *c0, \
      const float *h0, float *c1, float *h1, float *y, float *gates, float *cs,               \
      unsigned *arrivals) {                                                                   \
    extern __shared__ float4 aligned[]; /* it is read four numbers at a time */               \
    lstm_persistent<UNITS, ACT>(steps, batch, n, per, tiles, forget_bias, z, kernel,          \
                                kernel_stride, lengths, wide, c0, h0, c1, h1, y, gates, cs,   \
                                arrivals, (float *)aligned);                                  \
  }
#define PERSISTENT_8_16(ACT, name) PERSISTENT(16, ACT, name) PERSISTENT(8, ACT, name)
FOR_COMMON(PERSISTENT_8_16)
