// Launch glue. The sizes of the arguments, and which are pointers, come from the kernel's own
// signature, so a launch can copy them exactly when it is queued. source.cpp appends one `entry`
// per kernel.
#pragma once

namespace cudasim {

template <unsigned... I>
struct Indices {};
template <unsigned N, unsigned... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <unsigned... I>
struct Count<0, I...> {
  using type = Indices<I...>;
};

template <class T>
struct Unqualified {
  using type = T;
};
template <class T>
struct Unqualified<const T> {
  using type = T;
};

template <unsigned I, class T>
struct Slot {
  typename Unqualified<T>::type value;
};

template <class List, class... A>
struct Pack;
template <unsigned... I, class... A>
struct Pack<Indices<I...>, A...> : Slot<I, A>... {};

template <class T>
inline bool acceptable(const DeviceApi&, const T&) {
  return true;
}
template <class T>
inline bool acceptable(const DeviceApi& api, T* const& pointer) {
  return !pointer || api.is_device_pointer(pointer);
}

template <unsigned I, class T>
inline void bind_slot(const DeviceApi& api, Slot<I, T>& slot, void** arguments, int& refused) {
  static_assert(__is_trivially_copyable(T), "kernel arguments are copied byte by byte");
  __builtin_memcpy(static_cast<void*>(&slot.value), arguments[I], sizeof slot.value);
  if (refused < 0 && !acceptable(api, slot.value)) refused = static_cast<int>(I);
}

template <unsigned I, class T>
inline const T& argument(const Slot<I, T>& slot) {
  return slot.value;
}

template <auto Kernel>
struct Glue;

template <class... A, void (*Kernel)(A...)>
struct Glue<Kernel> {
  // One extra element, since a kernel may have no arguments.
  static constexpr unsigned sizes[] = {sizeof(A)..., 0};

  template <class List>
  struct With;
  template <unsigned... I>
  struct With<Indices<I...>> {
    using Arguments = Pack<Indices<I...>, A...>;

    static int bind(const DeviceApi& api, void** arguments, void* storage) {
      int refused = -1;
      auto& pack = *static_cast<Arguments*>(storage);
      (bind_slot<I, A>(api, pack, arguments, refused), ...);
      (void)pack, (void)arguments, (void)api;
      return refused;
    }
    static void run_thread(const void* storage) {
      const auto& pack = *static_cast<const Arguments*>(storage);
      (void)pack;
      Kernel(argument<I, A>(pack)...);
    }
    static void run_block(const void* storage, ThreadState& state, const unsigned short* order,
                          unsigned threads) {
      const unsigned width = state.block_dim.x, height = state.block_dim.y;
      for (unsigned i = 0; i < threads; i++) {
        unsigned t = order[i];
        state.thread = height == 1 && threads == width
                           ? Index3{t, 0, 0}
                           : Index3{t % width, t / width % height, t / width / height};
        state.lane = t & 31;
        run_thread(storage);
      }
    }
  };

  static constexpr KernelEntry entry(int max_threads, bool suspends) {
    using Of = With<typename Count<sizeof...(A)>::type>;
    return {sizeof(typename Of::Arguments),
            sizes,
            sizeof...(A),
            max_threads,
            suspends,
            Of::bind,
            Of::run_thread,
            Of::run_block};
  }
};

template <class... Bounds>
constexpr int first_bound(int first = 1024, Bounds...) {
  return first;
}

}  // namespace cudasim

extern "C" __attribute__((visibility("default"))) void cudasim_attach(
    const cudasim::DeviceApi* api) {
  cudasim::api = api;
}
