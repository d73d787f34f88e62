// The description of a run of generated steps, which their kernels read from device memory: a chunk
// of steps is recorded once and replayed for any sequence.
#include "steps.cuh"

// Words of a description. Mirrors `Words` in scan/run.rs.
struct Words {
  u64 all[128];
};

// One thread writes the description, which is a kernel argument, so the host waits for no copy.
KERNEL(steps_describe_all)(u64 *to, const __grid_constant__ Words words, i64 count) {
  for (i64 i = 0; i < count; i++) to[i] = words.all[i];
}

KERNEL(steps_advance_all)(Steps *s, i64 steps) { s->first += s->by * steps; }
