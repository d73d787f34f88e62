// Loads and stores with cache hints, fences, and atomics. One host thread runs all device threads,
// so nothing here needs to be atomic; the compiler's atomics inform ThreadSanitizer.
#pragma once

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldca(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  cudasim::api->preempt();
  return *p;
}
template <class T>
inline T __ldcv(const T* p) {
  cudasim::api->preempt();
  return *p;
}
template <class T>
inline void __stcg(T* p, T v) {
  *p = v;
}
template <class T>
inline void __stcs(T* p, T v) {
  *p = v;
}
template <class T>
inline void __stwb(T* p, T v) {
  *p = v;
}
template <class T>
inline void __stwt(T* p, T v) {
  *p = v;
}

inline void __threadfence() { cudasim::api->preempt(); }
inline void __threadfence_block() { cudasim::api->preempt(); }
inline void __threadfence_system() { cudasim::api->preempt(); }
inline void __nanosleep(unsigned) { cudasim::api->suspend_yield(); }

namespace cudasim {

template <class T, class F>
inline T atomic_update(T* p, F next) {
  api->preempt();
  T seen, wanted;
  __atomic_load(p, &seen, __ATOMIC_RELAXED);
  do wanted = next(seen);
  while (!__atomic_compare_exchange(p, &seen, &wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  return seen;
}

template <class T>
inline T atomic_add(T* p, T v) {
  return atomic_update(p, [v](T x) { return static_cast<T>(x + v); });
}
template <class T>
inline T atomic_exchange(T* p, T v) {
  return atomic_update(p, [v](T) { return v; });
}
template <class T>
inline T atomic_compare(T* p, T expected, T v) {
  api->preempt();
  __atomic_compare_exchange(p, &expected, &v, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  return expected;
}

}  // namespace cudasim

// Overloads, not templates: a type without a CUDA atomic must not compile here either.
#define CUDASIM_ATOMIC_ADD(T) \
  inline T atomicAdd(T* p, T v) { return cudasim::atomic_add(p, v); }
CUDASIM_ATOMIC_ADD(int)
CUDASIM_ATOMIC_ADD(unsigned)
CUDASIM_ATOMIC_ADD(unsigned long long)
CUDASIM_ATOMIC_ADD(float)
CUDASIM_ATOMIC_ADD(double)
#undef CUDASIM_ATOMIC_ADD

#define CUDASIM_ATOMIC_SWAP(T) \
  inline T atomicExch(T* p, T v) { return cudasim::atomic_exchange(p, v); }
CUDASIM_ATOMIC_SWAP(int)
CUDASIM_ATOMIC_SWAP(unsigned)
CUDASIM_ATOMIC_SWAP(unsigned long long)
CUDASIM_ATOMIC_SWAP(float)
#undef CUDASIM_ATOMIC_SWAP

#define CUDASIM_ATOMIC_CAS(T) \
  inline T atomicCAS(T* p, T expected, T v) { return cudasim::atomic_compare(p, expected, v); }
CUDASIM_ATOMIC_CAS(int)
CUDASIM_ATOMIC_CAS(unsigned)
CUDASIM_ATOMIC_CAS(unsigned long long)
CUDASIM_ATOMIC_CAS(unsigned short)
#undef CUDASIM_ATOMIC_CAS

#define CUDASIM_ATOMIC_ORDER(T)                                           \
  inline T atomicMax(T* p, T v) {                                         \
    return cudasim::atomic_update(p, [v](T x) { return x < v ? v : x; }); \
  }                                                                       \
  inline T atomicMin(T* p, T v) {                                         \
    return cudasim::atomic_update(p, [v](T x) { return v < x ? v : x; }); \
  }
CUDASIM_ATOMIC_ORDER(int)
CUDASIM_ATOMIC_ORDER(unsigned)
CUDASIM_ATOMIC_ORDER(long long)
CUDASIM_ATOMIC_ORDER(unsigned long long)
#undef CUDASIM_ATOMIC_ORDER

#define CUDASIM_ATOMIC_BITS(T)                                                    \
  inline T atomicAnd(T* p, T v) {                                                 \
    return cudasim::atomic_update(p, [v](T x) { return static_cast<T>(x & v); }); \
  }                                                                               \
  inline T atomicOr(T* p, T v) {                                                  \
    return cudasim::atomic_update(p, [v](T x) { return static_cast<T>(x | v); }); \
  }                                                                               \
  inline T atomicXor(T* p, T v) {                                                 \
    return cudasim::atomic_update(p, [v](T x) { return static_cast<T>(x ^ v); }); \
  }
CUDASIM_ATOMIC_BITS(int)
CUDASIM_ATOMIC_BITS(unsigned)
CUDASIM_ATOMIC_BITS(unsigned long long)
#undef CUDASIM_ATOMIC_BITS

inline int atomicSub(int* p, int v) { return cudasim::atomic_add(p, -v); }
inline unsigned atomicSub(unsigned* p, unsigned v) { return cudasim::atomic_add(p, 0u - v); }
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return cudasim::atomic_update(p, [limit](unsigned x) { return x >= limit ? 0u : x + 1; });
}
inline unsigned atomicDec(unsigned* p, unsigned limit) {
  return cudasim::atomic_update(
      p, [limit](unsigned x) { return x == 0 || x > limit ? limit : x - 1; });
}
