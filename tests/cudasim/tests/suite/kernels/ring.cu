extern "C" __global__ void fill(float* x, int n, float value) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = value + 0.001f * i;
}

// Counts in `bad` the elements that differ from `fill`.
extern "C" __global__ void check(const float* x, int n, float value, int* bad) {
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    if (!(x[i] == value + 0.001f * i)) atomicAdd(bad, 1);
}

extern "C" __global__ void add_to(const float* x, float* sum, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum[i] += x[i];
}
