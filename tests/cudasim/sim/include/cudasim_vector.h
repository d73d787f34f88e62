// CUDA's built-in vector types, with their alignment.
#pragma once

using uint3 = ::cudasim::Index3;
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

#define CUDASIM_VECTOR_TYPES(T, name, align2, align4)                \
  struct name##1 { T x; };                                           \
  struct alignas(align2) name##2 { T x, y; };                        \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(align4) name##4 { T x, y, z, w; };                  \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDASIM_VECTOR_TYPES(unsigned char, uchar, 2, 4)
CUDASIM_VECTOR_TYPES(short, short, 4, 8)
CUDASIM_VECTOR_TYPES(unsigned short, ushort, 4, 8)
CUDASIM_VECTOR_TYPES(int, int, 8, 16)
CUDASIM_VECTOR_TYPES(float, float, 8, 16)
CUDASIM_VECTOR_TYPES(double, double, 16, 16)
CUDASIM_VECTOR_TYPES(long long, longlong, 16, 16)
CUDASIM_VECTOR_TYPES(unsigned long long, ulonglong, 16, 16)

// `uint3` is the type of threadIdx, so the unsigned types are written out.
struct uint1 {
  unsigned x;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
