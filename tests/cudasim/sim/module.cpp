// Modules, functions, and the checks of a launch before the kernel is queued.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "device.h"
#include "image.h"
#include "memory.h"
#include "scheduler.h"
#include "state.h"
#include "stream.h"

namespace cudasim {
namespace {

/// Device memory that the driver takes for a module.
constexpr size_t module_bytes = 16 << 10;

struct Function {
  std::string name;
  const KernelEntry* entry;
  int architecture;
  int max_dynamic_shared = default_block_shared;
  bool limit_is_set = false;
};

struct Module {
  void* library;
  int architecture;
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::set<void*> globals;
};

std::set<Module*> modules;
std::set<Function*> functions;

/// Function attributes, by the driver's numbers.
enum FunctionAttribute {
  max_threads_per_block = 0,
  num_registers = 4,
  ptx_version = 5,
  binary_version = 6,
  max_dynamic_shared_size = 8,
  preferred_carveout = 9,
};

int active_blocks(const Function& function, int block_threads, size_t dynamic_shared) {
  if (block_threads <= 0 || block_threads > function.entry->max_threads) return 0;
  if (dynamic_shared > static_cast<size_t>(function.max_dynamic_shared)) return 0;
  int by_threads = max_multiprocessor_threads / ((block_threads + 31) / 32 * 32);
  int shared = max_multiprocessor_shared - settings.taken_shared;
  int by_shared = std::max(0, shared) / (static_cast<int>(dynamic_shared) + reserved_block_shared);
  return std::min({by_threads, by_shared, 32});
}

struct Grid {
  Index3 grid, block;
  unsigned dynamic_shared;
};

int check_grid(const Function& function, const Grid& g, bool cooperative) {
  auto positive = [](Index3 i) { return i.x && i.y && i.z; };
  if (!positive(g.grid) || !positive(g.block) || g.grid.y > 65535 || g.grid.z > 65535 ||
      g.block.z > 64) {
    report("launch of '" + function.name + "': a grid or block dimension is 0 or too large");
    return invalid_value;
  }
  size_t threads = size_t{g.block.x} * g.block.y * g.block.z;
  if (threads > max_block_threads) {
    report("launch of '" + function.name + "': " + std::to_string(threads) + " threads in a block");
    return invalid_value;
  }
  if (threads > static_cast<size_t>(function.entry->max_threads)) {
    report("launch of '" + function.name + "': " + std::to_string(threads) +
           " threads in a block, its bound is " + std::to_string(function.entry->max_threads));
    return launch_out_of_resources;
  }
  if (g.dynamic_shared > static_cast<unsigned>(function.max_dynamic_shared)) {
    report("launch of '" + function.name + "': " + std::to_string(g.dynamic_shared) +
           " bytes of dynamic shared memory, allowed are " +
           std::to_string(function.max_dynamic_shared));
    return invalid_value;
  }
  if (cooperative) {
    size_t blocks = size_t{g.grid.x} * g.grid.y * g.grid.z;
    auto room =
        static_cast<size_t>(active_blocks(function, static_cast<int>(threads), g.dynamic_shared)) *
        static_cast<size_t>(settings.multiprocessors);
    room = std::min(room, static_cast<size_t>(settings.resident_limit));
    if (blocks > room) return cooperative_launch_too_large;
  }
  return success;
}

/// The ends of cooperative launches that may not have run.
std::vector<MarkerPointer> cooperative_launches;

/// Those of other streams.
std::vector<MarkerPointer> unfinished_cooperative(const Stream& stream) {
  auto& all = cooperative_launches;
  all.erase(std::remove_if(all.begin(), all.end(), [](auto& end) { return end->done; }), all.end());
  std::vector<MarkerPointer> others;
  std::copy_if(all.begin(), all.end(), std::back_inserter(others),
               [&](auto& end) { return end->stream != &stream; });
  return others;
}

int launch(Function* function, const Grid& g, StreamHandle handle, void** arguments,
           bool cooperative) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Stream* stream = stream_of(handle);
  if (!stream || !functions.count(function)) return invalid_handle;
  CUDASIM_TRY(check_grid(*function, g, cooperative));
  std::shared_ptr<void> storage(std::malloc(std::max(1u, function->entry->arguments_size)),
                                std::free);
  int refused = function->entry->bind(device_api(), arguments, storage.get());
  if (refused >= 0) {
    poison(illegal_address, "launch of '" + function->name + "': argument " +
                                std::to_string(refused) + " is not a device pointer");
    return poisoned();
  }
  count_launch(function->name);
  auto earlier = cooperative ? unfinished_cooperative(*stream) : std::vector<MarkerPointer>{};
  CUDASIM_TRY(submit(*stream, [=, entry = function->entry, name = function->name] {
    if (name == settings.failing_kernel) {
      settings.failing_kernel.clear();
      return poison(illegal_address, "kernel '" + name + "' fails because a test wants it to");
    }
    // None of two cooperative kernels that start at once may get all its blocks.
    for (auto& other : earlier)
      if (!other->done)
        return poison(launch_failed,
                      "cooperative kernel '" + name + "' may run beside another one");
    run({entry, name, storage.get(), g.grid, g.block, g.dynamic_shared, cooperative});
  }));
  if (cooperative && !capturing(*stream)) cooperative_launches.push_back(mark(*stream));
  return success;
}

int load(Module** to, const char* data) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  Image image;
  if (!read_image(data, &image)) {
    report("the module is none that the simulated NVRTC made");
    return invalid_image;
  }
  if (image.build != CUDASIM_BUILD) {
    report("the module is for the simulated device " + image.build + ", this is " CUDASIM_BUILD);
    return invalid_image;
  }
  const int device = settings.compute_capability;
  bool fits = image.binary ? image.architecture / 10 == device / 10 && image.architecture <= device
                           : image.architecture <= device;
  if (!fits) {
    report("the module is for " + std::to_string(image.architecture) + ", the device has " +
           std::to_string(device));
    return no_binary_for_gpu;
  }
  if (!reserve(module_bytes)) return out_of_memory;
  void* library = dlopen(image.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    unreserve(module_bytes);
    report(dlerror());
    return invalid_image;
  }
  auto attach = reinterpret_cast<void (*)(const DeviceApi*)>(dlsym(library, "cudasim_attach"));
  if (!attach) return invalid_image;
  attach(&device_api());
  *to = new Module{library, image.architecture, {}, {}};
  modules.insert(*to);
  return success;
}

}  // namespace

// ---- modules ----

CUDASIM_EXPORT int cuModuleLoadData(Module** module, const void* image) {
  return load(module, static_cast<const char*>(image));
}
CUDASIM_EXPORT int cuModuleLoadDataEx(Module** module, const void* image, unsigned, void*, void*) {
  return load(module, static_cast<const char*>(image));
}
CUDASIM_EXPORT int cuModuleLoad(Module** module, const char* path) {
  std::string text;
  return read_file(path, &text) ? load(module, text.c_str()) : file_not_found;
}

CUDASIM_EXPORT int cuModuleUnload(Module* module) {
  Lock lock(mutex);
  if (!modules.count(module)) return invalid_handle;
  drain_all();
  for (auto& [name, function] : module->functions) functions.erase(function.get());
  for (void* global : module->globals) disown(global);
  modules.erase(module);
  dlclose(module->library);
  unreserve(module_bytes);
  delete module;
  return success;
}

CUDASIM_EXPORT int cuModuleGetFunction(Function** to, Module* module, const char* name) {
  Lock lock(mutex);
  CUDASIM_TRY(usable());
  if (!modules.count(module)) return invalid_handle;
  auto& function = module->functions[name];
  if (!function) {
    auto* entry = static_cast<const KernelEntry*>(
        dlsym(module->library, (std::string("cudasim_kernel_") + name).c_str()));
    // A kernel that is not extern "C" has another name on a GPU.
    if (!entry || !dlsym(module->library, name)) {
      module->functions.erase(name);
      report(std::string("the module has no extern \"C\" kernel '") + name + "'");
      return not_found;
    }
    function = std::make_unique<Function>(Function{name, entry, module->architecture});
    functions.insert(function.get());
  }
  *to = function.get();
  return success;
}

CUDASIM_EXPORT int cuModuleGetGlobal_v2(unsigned long long* to, size_t* bytes, Module* module,
                                        const char* name) {
  Lock lock(mutex);
  if (!modules.count(module)) return invalid_handle;
  void* address = dlsym(module->library, name);
  if (!address) return not_found;
  Dl_info info;
  const ElfW(Sym)* symbol = nullptr;
  if (!dladdr1(address, &info, reinterpret_cast<void**>(const_cast<ElfW(Sym)**>(&symbol)),
               RTLD_DL_SYMENT) ||
      !symbol)
    return not_found;
  if (module->globals.insert(address).second) adopt(address, symbol->st_size, Memory::global);
  if (to) *to = reinterpret_cast<unsigned long long>(address);
  if (bytes) *bytes = symbol->st_size;
  return success;
}

// ---- functions ----

CUDASIM_EXPORT int cuFuncSetAttribute(Function* function, int attribute, int value) {
  Lock lock(mutex);
  if (!functions.count(function)) return invalid_handle;
  if (attribute == preferred_carveout) return success;
  if (attribute != max_dynamic_shared_size || value < 0 || value > max_block_shared)
    return invalid_value;
  // A GPU accepts this, and then refuses the launch of another thread that relies on the higher
  // limit.
  if (function->limit_is_set && value < function->max_dynamic_shared) {
    report("the limit of dynamic shared memory of '" + function->name + "' is lowered");
    return invalid_value;
  }
  function->max_dynamic_shared = value;
  function->limit_is_set = true;
  return success;
}

CUDASIM_EXPORT int cuFuncGetAttribute(int* value, int attribute, Function* function) {
  Lock lock(mutex);
  if (!functions.count(function)) return invalid_handle;
  switch (attribute) {
    case max_threads_per_block: *value = function->entry->max_threads; break;
    case num_registers: *value = 32; break;
    case ptx_version:
    case binary_version: *value = function->architecture; break;
    case max_dynamic_shared_size: *value = function->max_dynamic_shared; break;
    default: *value = 0;
  }
  return success;
}

CUDASIM_EXPORT int cuFuncGetParamInfo(Function* function, size_t index, size_t* offset,
                                      size_t* size) {
  Lock lock(mutex);
  if (!functions.count(function)) return invalid_handle;
  if (index >= function->entry->arguments) return invalid_value;
  // Offsets as the driver's: aligned to the size of the argument, at most 8 bytes. The backend uses
  // only the sizes.
  size_t at = 0;
  for (size_t i = 0;; i++) {
    size_t bytes = function->entry->argument_sizes[i], alignment = bytes >= 8   ? 8
                                                                   : bytes >= 4 ? 4
                                                                                : bytes;
    at = (at + alignment - 1) / alignment * alignment;
    if (i == index) {
      *offset = at;
      if (size) *size = bytes;
      return success;
    }
    at += bytes;
  }
}

CUDASIM_EXPORT int cuFuncSetCacheConfig(Function* function, int) {
  Lock lock(mutex);
  return functions.count(function) ? success : invalid_handle;
}

CUDASIM_EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, Function* function, int threads, size_t dynamic_shared, unsigned) {
  Lock lock(mutex);
  if (!functions.count(function)) return invalid_handle;
  *blocks = active_blocks(*function, threads, dynamic_shared);
  return success;
}
CUDASIM_EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function* function,
                                                               int threads, size_t dynamic_shared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads,
                                                              dynamic_shared, 0);
}

static int potential_block_size(int* grid, int* block, Function* function,
                                size_t (*shared_for)(int), size_t shared, int limit) {
  Lock lock(mutex);
  if (!functions.count(function)) return invalid_handle;
  int most = function->entry->max_threads;
  if (limit > 0) most = std::min(most, limit);
  int best = 0;
  for (int threads = std::max(32, most / 32 * 32); threads >= 32; threads -= 32) {
    int active =
        threads * active_blocks(*function, threads, shared_for ? shared_for(threads) : shared);
    if (active > best)
      best = active, *block = threads, *grid = active / threads * settings.multiprocessors;
  }
  return best ? success : invalid_value;
}
CUDASIM_EXPORT int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, Function* function,
                                                    size_t (*shared_for)(int), size_t shared,
                                                    int limit) {
  return potential_block_size(grid, block, function, shared_for, shared, limit);
}
CUDASIM_EXPORT int cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block,
                                                             Function* function,
                                                             size_t (*shared_for)(int),
                                                             size_t shared, int limit, unsigned) {
  return potential_block_size(grid, block, function, shared_for, shared, limit);
}

CUDASIM_EXPORT int cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, Function* function,
                                                           int blocks, int threads) {
  Lock lock(mutex);
  if (!functions.count(function)) return invalid_handle;
  if (blocks <= 0 || threads <= 0) return invalid_value;
  int share = max_multiprocessor_shared / blocks - reserved_block_shared;
  *bytes = static_cast<size_t>(std::clamp(share, 0, function->max_dynamic_shared));
  return success;
}

// ---- launches ----

CUDASIM_EXPORT int cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned gz,
                                  unsigned bx, unsigned by, unsigned bz, unsigned shared,
                                  StreamHandle stream, void** arguments, void** extra) {
  if (extra) return not_supported;
  return launch(function, {{gx, gy, gz}, {bx, by, bz}, shared}, stream, arguments, false);
}

CUDASIM_EXPORT int cuLaunchCooperativeKernel(Function* function, unsigned gx, unsigned gy,
                                             unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                             unsigned shared, StreamHandle stream,
                                             void** arguments) {
  return launch(function, {{gx, gy, gz}, {bx, by, bz}, shared}, stream, arguments, true);
}

namespace {

// The layouts of cuda.h.
struct LaunchAttribute {
  unsigned id;
  char padding[4];
  union {
    char bytes[64];
    int cooperative;
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
};
struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  StreamHandle stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};
enum LaunchAttributeId { cooperative_attribute = 2, cluster_attribute = 4 };

}  // namespace

CUDASIM_EXPORT int cuLaunchKernelEx(const LaunchConfig* config, Function* function,
                                    void** arguments, void** extra) {
  if (extra) return not_supported;
  bool cooperative = false;
  for (unsigned i = 0; i < config->attribute_count; i++) {
    const LaunchAttribute& attribute = config->attributes[i];
    if (attribute.id == cooperative_attribute) cooperative = attribute.value.cooperative != 0;
    if (attribute.id == cluster_attribute) {
      auto& c = attribute.value.cluster;
      if (c.x != 1 || c.y != 1 || c.z != 1) return not_supported;  // clusters are not simulated
    }
  }
  auto& g = config->grid;
  auto& b = config->block;
  return launch(function, {{g[0], g[1], g[2]}, {b[0], b[1], b[2]}, config->shared}, config->stream,
                arguments, cooperative);
}

}  // namespace cudasim
