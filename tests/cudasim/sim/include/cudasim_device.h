// The CUDA C++ dialect as ordinary C++17: the host's compiler reads this before every kernel
// source. Like NVRTC, it includes no header of the standard library.
#pragma once
#include "cudasim_abi.h"

#define __CUDASIM__ 1
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)
// `__global__`, `__shared__` and `__launch_bounds__` are not macros: source.cpp rewrites them.

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

namespace cudasim {

// Set when the module is loaded. Internal to each compiled source, so that reading it costs one
// load.
static const DeviceApi* api;

}  // namespace cudasim

#define CUDASIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#include "cudasim_vector.h"

#define threadIdx (::cudasim::api->current->thread)
#define blockIdx (::cudasim::api->current->block)
#define blockDim (::cudasim::api->current->block_dim)
#define gridDim (::cudasim::api->current->grid_dim)
#define warpSize 32

#include "cudasim_math.h"
#include "cudasim_memory.h"
#include "cudasim_collective.h"
#include "cudasim_prim.h"
#include "cudasim_launch.h"

extern "C" int printf(const char* format, ...);

#define CUDASIM_TEXT_(x) #x
#define CUDASIM_TEXT(x) CUDASIM_TEXT_(x)
#define assert(condition)                                             \
  ((condition) ? (void)0                                              \
               : ::cudasim::api->fail("assertion failed at " __FILE__ \
                                      ":" CUDASIM_TEXT(__LINE__) ": " #condition))
