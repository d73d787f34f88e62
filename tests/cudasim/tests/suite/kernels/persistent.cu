#include "prim.cuh"

// Persistent LSTM forward. A group of `per` blocks owns `rows` rows of the batch; groups are
// independent. A block owns U units with all four gates. Its slice of R stays in shared memory, its
// cell states in registers.
// xw [T,B,4H] = x W + bias (order i, j, f, o); R [H,4H]; y [T,B,H] is the output, through which
// blocks exchange the state.
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

extern "C" __global__ void __launch_bounds__(256)
    lstm_forward(const float* __restrict__ xw, const float* __restrict__ R,
                 const float* __restrict__ h0, const float* __restrict__ c0,
                 const int* __restrict__ lengths, float* y, float* h_last, float* c_last,
                 unsigned* flags, int T, int B, int H, int rows, int per, int U,
                 float forget_bias) {
  extern __shared__ float shared[];
  float* Rs = shared;              // [H][U][4]
  float* hs = shared + H * U * 4;  // [rows][H]
  int group = blockIdx.x / per, u0 = (blockIdx.x % per) * U, b0 = group * rows;
  int nu = min(U, H - u0), nb = min(rows, B - b0);
  for (int i = threadIdx.x; i < H * nu; i += blockDim.x) {
    int k = i / nu, u = i % nu;
    for (int q = 0; q < 4; q++) Rs[(k * U + u) * 4 + q] = R[(size_t)k * 4 * H + q * H + u0 + u];
  }
  int u = threadIdx.x % U, b = threadIdx.x / U;  // each thread: one unit of one row
  bool mine = u < nu && b < nb;
  size_t at = (size_t)(b0 + b) * H + u0 + u;
  float c = mine ? c0[at] : 0.f, h = mine ? h0[at] : 0.f;
  int length = mine ? lengths[b0 + b] : 0, last = 0;
  // The group stops at its longest row.
  for (int i = 0; i < nb; i++) last = max(last, lengths[b0 + i]);
  for (int t = 0; t < T; t++) {
    size_t row = (size_t)t * B + b0 + b;
    if (t >= last) {
      if (mine) y[row * H + u0 + u] = 0.f;
      continue;
    }
    const float* before = t ? y + (size_t)(t - 1) * B * H : h0;
    for (int i = threadIdx.x; i < nb * H; i += blockDim.x) {
      float v = __ldcg(before + (size_t)(b0 + i / H) * H + i % H);
      hs[i] = v;
    }
    __syncthreads();
    if (mine) {
      float a[4];
      for (int q = 0; q < 4; q++) a[q] = xw[row * 4 * H + q * H + u0 + u];
      for (int k = 0; k < H; k++) {
        float hv = hs[b * H + k];
        for (int q = 0; q < 4; q++) a[q] = fmaf(hv, Rs[(k * U + u) * 4 + q], a[q]);
      }
      if (t < length) {
        c = fmaf(sigmoid(a[2] + forget_bias), c, sigmoid(a[0]) * tanhf(a[1]));
        h = sigmoid(a[3]) * tanhf(c);
      }
      y[row * H + u0 + u] = t < length ? h : 0.f;
    }
#ifndef BUG_NO_GROUP_BARRIER
    __syncthreads();
    if (threadIdx.x == 0) {  // barrier of this group only
      add_release(flags + group, 1u);
      while (ld_acquire(flags + group) < (unsigned)((t + 1) * per)) __nanosleep(20);
    }
#endif
#ifndef BUG_NO_CLOSING_BARRIER
    __syncthreads();
#endif
  }
  if (mine) h_last[at] = h, c_last[at] = c;
}

// A barrier for all blocks. Needs a cooperative launch and a counter that is initially 0.
__device__ void grid_barrier(unsigned* counter, unsigned goal) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
    while (ld_acquire(counter) < goal) __nanosleep(20);
  }
  __syncthreads();
}

// Persistent Elman RNN: h_t = tanh(xw_t + R h_{t-1}). The block's rows of R stay in shared memory.
extern "C" __global__ void elman(const float* xw, const float* R, float* h, int T, int B, int H,
                                 unsigned* counter) {
  extern __shared__ float Rs[];
  int rows = (H + gridDim.x - 1) / gridDim.x, r0 = blockIdx.x * rows, nr = min(rows, H - r0);
  for (int i = threadIdx.x; i < nr * H; i += blockDim.x) Rs[i] = R[r0 * H + i];
  __syncthreads();
  for (int t = 0; t < T; t++) {
    const float* before = h + (size_t)t * B * H;
    float* after = h + (size_t)(t + 1) * B * H;
    for (int i = threadIdx.x; i < nr * B; i += blockDim.x) {
      int r = i % nr, b = i / nr;
      float s = xw[((size_t)t * B + b) * H + r0 + r];
      for (int k = 0; k < H; k++) s = fmaf(Rs[r * H + k], __ldcg(before + b * H + k), s);
      after[b * H + r0 + r] = tanhf(s);
    }
#ifndef BUG_NO_GRID_BARRIER
    grid_barrier(counter, (t + 1) * gridDim.x);
#endif
  }
}
