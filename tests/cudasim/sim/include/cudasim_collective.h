// Barriers of a block and collectives of a warp.
#pragma once

inline void __syncthreads(CUDASIM_HERE) {
  cudasim::api->suspend_block_barrier({file, line}, cudasim::Vote::none, 0);
}
inline int __syncthreads_count(int predicate, CUDASIM_HERE) {
  return cudasim::api->suspend_block_barrier({file, line}, cudasim::Vote::count, predicate != 0);
}
inline int __syncthreads_and(int predicate, CUDASIM_HERE) {
  return cudasim::api->suspend_block_barrier({file, line}, cudasim::Vote::all, predicate != 0);
}
inline int __syncthreads_or(int predicate, CUDASIM_HERE) {
  return cudasim::api->suspend_block_barrier({file, line}, cudasim::Vote::any, predicate != 0);
}

namespace cudasim {

inline void combine_nothing(unsigned, void* const*) {}

struct BallotOperand {
  int predicate;
  unsigned result;
};

inline void combine_ballot(unsigned, void* const* lanes) {
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; i++)
    if (lanes[i] && static_cast<BallotOperand*>(lanes[i])->predicate) votes |= 1u << i;
  for (unsigned i = 0; i < 32; i++)
    if (lanes[i]) static_cast<BallotOperand*>(lanes[i])->result = votes;
}

/// Performs a vote; returns the mask of lanes whose predicate is true.
inline unsigned ballot(unsigned mask, int predicate, Site site) {
  BallotOperand operand{predicate, 0};
  api->suspend_warp_collective(site, mask, combine_ballot, &operand);
  return operand.result;
}

template <class T>
struct ShuffleOperand {
  T value;
  unsigned source;
  T result;
};

template <class T>
void combine_shuffle(unsigned, void* const* lanes) {
  for (unsigned i = 0; i < 32; i++) {
    if (!lanes[i]) continue;
    auto* mine = static_cast<ShuffleOperand<T>*>(lanes[i]);
    // The value from a lane that does not take part is undefined: poison.
    if (auto* theirs = static_cast<ShuffleOperand<T>*>(lanes[mine->source]))
      mine->result = theirs->value;
    else
      __builtin_memset(&mine->result, 0xFF, sizeof mine->result);
  }
}

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  ShuffleOperand<T> operand{value, source & 31, value};
  api->suspend_warp_collective(site, mask, combine_shuffle<T>, &operand);
  return operand.result;
}

inline bool same_segment(unsigned a, unsigned b, unsigned width) {
  return (a & ~(width - 1)) == (b & ~(width - 1));
}

}  // namespace cudasim

inline void __syncwarp(unsigned mask = 0xffffffffu, CUDASIM_HERE) {
  cudasim::api->suspend_warp_collective({file, line}, mask, cudasim::combine_nothing, nullptr);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDASIM_HERE) {
  return cudasim::ballot(mask, predicate, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, CUDASIM_HERE) {
  return cudasim::ballot(mask, predicate, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDASIM_HERE) {
  return cudasim::ballot(mask, !predicate, {file, line}) == 0;
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDASIM_HERE) {
  unsigned lane = cudasim::api->current->lane;
  return cudasim::shuffle(mask, value,
                          (lane & ~(width - 1u)) | (static_cast<unsigned>(source) & (width - 1u)),
                          {file, line});
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_HERE) {
  unsigned lane = cudasim::api->current->lane, source = lane + delta;
  return cudasim::shuffle(mask, value, cudasim::same_segment(lane, source, width) ? source : lane,
                          {file, line});
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_HERE) {
  unsigned lane = cudasim::api->current->lane;
  return cudasim::shuffle(mask, value, (lane & (width - 1u)) >= delta ? lane - delta : lane,
                          {file, line});
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CUDASIM_HERE) {
  unsigned lane = cudasim::api->current->lane, source = lane ^ static_cast<unsigned>(lane_mask);
  return cudasim::shuffle(mask, value, cudasim::same_segment(lane, source, width) ? source : lane,
                          {file, line});
}
