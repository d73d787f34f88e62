// NVRTC: compiles CUDA C++ to a shared object with the host's compiler. Objects are cached in a
// folder; the file name is a hash of all inputs. Several processes may create the same object at
// once.
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "image.h"
#include "process.h"
#include "sanitizer.h"
#include "source.h"
#include "state.h"

namespace fs = std::filesystem;

namespace cudasim {
namespace {

enum NvrtcStatus {
  ok = 0,
  program_creation_failure = 2,
  invalid_input = 3,
  invalid_program = 4,
  invalid_option = 5,
  compilation_error = 6,
  internal_error = 11,
};

struct Program {
  std::string source, name;
  /// Name and text of each header.
  std::vector<std::pair<std::string, std::string>> headers;
  std::string log, ptx, binary;
};

std::set<Program*> programs;

/// The options of a program that affect the host's compiler.
struct Options {
  std::vector<std::string> flags;
  int architecture = 0;
  bool virtual_architecture = false;
  bool fused_multiply_add = true;
};

bool starts(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

/// Options without effect on the simulated device.
bool ignored(const std::string& option) {
  for (const char* known : {"-default-device",
                            "--device-as-default-execution-space",
                            "--ptxas-options",
                            "-Xptxas",
                            "--maxrregcount",
                            "-maxrregcount",
                            "--extra-device-vectorization",
                            "-lineinfo",
                            "--generate-line-info",
                            "-G",
                            "--device-debug",
                            "--restrict",
                            "--use_fast_math",
                            "-use_fast_math",
                            "--ftz",
                            "-ftz",
                            "--prec-sqrt",
                            "--prec-div",
                            "-w",
                            "--disable-warnings",
                            "--diag-",
                            "--minimal",
                            "-dopt",
                            "--dopt",
                            "-split-compile",
                            "--split-compile"})
    if (starts(option, known)) return true;
  return false;
}

/// Parses one option. `next` is the option after it, for those that take two words. Returns the
/// number of words used; 0 if the option is unknown.
int understand(const std::string& option, const char* next, Options& options) {
  auto value = [&](const char* prefix) { return option.substr(std::strlen(prefix)); };
  auto set_architecture = [&](const std::string& name) {
    options.virtual_architecture = starts(name, "compute_");
    size_t digits = name.find('_');
    options.architecture = digits == std::string::npos ? 0 : std::atoi(name.c_str() + digits + 1);
    return options.architecture != 0 ? 1 : 0;
  };
  if (starts(option, "--gpu-architecture=")) return set_architecture(value("--gpu-architecture="));
  if (starts(option, "-arch=")) return set_architecture(value("-arch="));
  if ((option == "--gpu-architecture" || option == "-arch") && next)
    return set_architecture(next) ? 2 : 0;
  if (starts(option, "--std=") || starts(option, "-std="))
    return option.find("c++17") != std::string::npos ? 1 : 0;
  if (option == "-D" && next) return options.flags.push_back(std::string("-D") + next), 2;
  if (starts(option, "-D")) return options.flags.push_back(option), 1;
  if (starts(option, "--define-macro="))
    return options.flags.push_back("-D" + value("--define-macro=")), 1;
  if (starts(option, "-U")) return options.flags.push_back(option), 1;
  if (starts(option, "-I")) return options.flags.push_back(option), 1;
  if (starts(option, "--include-path="))
    return options.flags.push_back("-I" + value("--include-path=")), 1;
  if (starts(option, "--fmad=") || starts(option, "-fmad=")) {
    options.fused_multiply_add = option.find("false") == std::string::npos;
    return 1;
  }
  return ignored(option) ? 1 : 0;
}

std::vector<std::string> host_flags(const Options& options) {
  std::vector<std::string> flags = {
      "-std=c++17",        "-O2", "-g1", "-fPIC", "-w", "-fno-strict-aliasing", "-fno-math-errno",
      "-fno-trapping-math"};
  flags.push_back(options.fused_multiply_add ? "-ffp-contract=fast" : "-ffp-contract=off");
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    flags.insert(flags.end(), {"-mavx2", "-mfma"});
#endif
  if (sanitizer::mode() == sanitizer::Mode::address)
    flags.insert(flags.end(), {"-fsanitize=address", "-fno-omit-frame-pointer"});
  if (sanitizer::mode() == sanitizer::Mode::thread)
    flags.insert(flags.end(), {"-fsanitize=thread", "-fno-omit-frame-pointer"});
  flags.insert(flags.end(), options.flags.begin(), options.flags.end());
  return flags;
}

/// 128-bit FNV-1a over strings, each with its length.
class Hash {
 public:
  void add(const std::string& text) {
    add_bytes(text.data(), text.size());
    size_t length = text.size();
    add_bytes(&length, sizeof length);
  }
  std::string hex() const {
    char text[36];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(a_),
                  static_cast<unsigned long long>(b_));
    return text;
  }

 private:
  void add_bytes(const void* data, size_t size) {
    auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; i++) {
      a_ = (a_ ^ bytes[i]) * 0x100000001b3ull;
      b_ = (b_ ^ static_cast<unsigned char>(bytes[i] + 0x5b)) * 0x100000001b3ull;
    }
  }
  uint64_t a_ = 0xcbf29ce484222325ull, b_ = 0x84222325cbf29ce4ull;
};

std::string key(const Program& program, const Options& options,
                const std::vector<std::string>& flags) {
  Hash hash;
  hash.add(CUDASIM_BUILD);  // covers the simulator's own sources and the compiler
  hash.add(program.source);
  hash.add(program.name);
  for (auto& [name, text] : program.headers) hash.add(name), hash.add(text);
  for (auto& flag : flags) hash.add(flag);
  hash.add(std::to_string(options.architecture));
  return hash.hex();
}

/// A folder that is deleted on destruction.
struct WorkFolder {
  fs::path path;
  explicit WorkFolder(fs::path p) : path(std::move(p)) { fs::create_directories(path); }
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// Whether a header's name stays inside the folder of headers.
bool harmless(const std::string& name) {
  fs::path path(name);
  if (path.is_absolute() || name.empty()) return false;
  for (auto& part : path)
    if (part == "..") return false;
  return true;
}

Outcome compiler(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), CUDASIM_CXX);
  Outcome outcome = run_program(arguments);
  if (outcome.status < 0)
    outcome.output =
        "the simulated CUDA device compiles kernels with the C++ compiler `" CUDASIM_CXX
        "`, which cannot be started: " +
        outcome.output;
  return outcome;
}

int build(Program& program, const Options& options, const std::vector<std::string>& flags,
          const fs::path& object) {
  static std::atomic<unsigned> serial{0};
  WorkFolder work(object.string() + "." + std::to_string(getpid()) + "." +
                  std::to_string(serial++));
  for (auto& [name, text] : program.headers) write(work.path / "headers" / name, text);
  write(work.path / "kernel.cpp", "#include \"cudasim_device.h\"\n#line 1 \"" + program.name +
                                      "\"\n" + program.source + "\n");

  std::vector<std::string> preprocess = flags;
  // NVRTC does not find system headers either.
  preprocess.insert(preprocess.end(),
                    {"-E", "-nostdinc", "-nostdinc++",
                     "-D__CUDA_ARCH__=" + std::to_string(options.architecture * 10),
                     "-I" + (work.path / "headers").string(), "-I" CUDASIM_INCLUDE,
                     (work.path / "kernel.cpp").string(), "-o", (work.path / "kernel.i").string()});
  Outcome outcome = compiler(preprocess);
  if (outcome.status != 0) return program.log = outcome.output, compilation_error;

  std::string text;
  read_file((work.path / "kernel.i").string(), &text);
  try {
    write(work.path / "kernel.ii", translate(text));
  } catch (const SourceError& error) {
    return program.log = error.what(), compilation_error;
  }

  std::vector<std::string> compile = flags;
  compile.insert(compile.end(), {"-shared", "-Wl,-Bsymbolic", (work.path / "kernel.ii").string(),
                                 "-o", (work.path / "kernel.so").string()});
  outcome = compiler(compile);
  if (outcome.status != 0) return program.log = outcome.output, compilation_error;
  fs::rename(work.path / "kernel.so", object);  // the last process wins; all objects are the same
  return ok;
}

int compile(Program& program, int count, const char* const* given) {
  Options options;
  options.architecture = settings.compute_capability;
  for (int i = 0; i < count;) {
    int used = understand(given[i], i + 1 < count ? given[i + 1] : nullptr, options);
    if (used == 0) {
      program.log = std::string("nvrtc: error: invalid value for option or unknown option: ") +
                    given[i] + "\n";
      return invalid_option;
    }
    i += used;
  }
  program.log.clear();
  std::vector<std::string> flags = host_flags(options);
  fs::path folder =
      cache_folder.empty() ? fs::temp_directory_path() / "cudasim" : fs::path(cache_folder);
  fs::path object = folder / (key(program, options, flags) + ".so");
  if (!fs::exists(object))
    if (int status = build(program, options, flags, object)) return status;
  program.ptx = write_image({false, options.architecture, CUDASIM_BUILD, object.string()});
  program.binary = options.virtual_architecture
                       ? ""
                       : write_image({true, options.architecture, CUDASIM_BUILD, object.string()});
  return ok;
}

Program* known(Program* program) { return programs.count(program) ? program : nullptr; }

int copy_out(char* to, const std::string& text) {
  std::memcpy(to, text.c_str(), text.size() + 1);
  return ok;
}

}  // namespace

CUDASIM_EXPORT const char* nvrtcGetErrorString(int status) {
  switch (status) {
    case ok: return "NVRTC_SUCCESS";
    case program_creation_failure: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
    case invalid_input: return "NVRTC_ERROR_INVALID_INPUT";
    case invalid_program: return "NVRTC_ERROR_INVALID_PROGRAM";
    case invalid_option: return "NVRTC_ERROR_INVALID_OPTION";
    case compilation_error: return "NVRTC_ERROR_COMPILATION";
    default: return "NVRTC_ERROR_INTERNAL_ERROR";
  }
}

CUDASIM_EXPORT int nvrtcVersion(int* major, int* minor) {
  *major = settings.compiler_version / 1000, *minor = settings.compiler_version % 1000 / 10;
  return ok;
}

static constexpr int supported[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};
CUDASIM_EXPORT int nvrtcGetNumSupportedArchs(int* count) {
  *count = static_cast<int>(std::size(supported));
  return ok;
}
CUDASIM_EXPORT int nvrtcGetSupportedArchs(int* architectures) {
  for (int architecture : supported) *architectures++ = architecture;
  return ok;
}

CUDASIM_EXPORT int nvrtcCreateProgram(Program** to, const char* source, const char* name, int count,
                                      const char* const* texts, const char* const* names) {
  Lock lock(mutex);
  if (!to || !source || count < 0) return invalid_input;
  auto program = std::make_unique<Program>();
  program->source = source;
  program->name = name && *name ? name : "default_program";
  for (int i = 0; i < count; i++) {
    if (!harmless(names[i])) return program_creation_failure;
    program->headers.emplace_back(names[i], texts[i]);
  }
  *to = program.release();
  programs.insert(*to);
  return ok;
}

CUDASIM_EXPORT int nvrtcDestroyProgram(Program** program) {
  Lock lock(mutex);
  if (!program || !programs.erase(*program)) return invalid_program;
  delete std::exchange(*program, nullptr);
  return ok;
}

CUDASIM_EXPORT int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  Lock lock(mutex);
  if (!known(program)) return invalid_program;
  try {
    return compile(*program, count, options);
  } catch (const std::exception& error) {
    program->log = error.what();  // thrown by the file system
    return internal_error;
  }
}

CUDASIM_EXPORT int nvrtcGetProgramLogSize(Program* program, size_t* size) {
  Lock lock(mutex);
  return known(program) ? *size = program->log.size() + 1, ok : invalid_program;
}
CUDASIM_EXPORT int nvrtcGetProgramLog(Program* program, char* to) {
  Lock lock(mutex);
  return known(program) ? copy_out(to, program->log) : invalid_program;
}
CUDASIM_EXPORT int nvrtcGetPTXSize(Program* program, size_t* size) {
  Lock lock(mutex);
  return known(program) ? *size = program->ptx.size() + 1, ok : invalid_program;
}
CUDASIM_EXPORT int nvrtcGetPTX(Program* program, char* to) {
  Lock lock(mutex);
  return known(program) ? copy_out(to, program->ptx) : invalid_program;
}
// A virtual architecture has no CUBIN: its size is 0.
CUDASIM_EXPORT int nvrtcGetCUBINSize(Program* program, size_t* size) {
  Lock lock(mutex);
  return known(program) ? *size = program->binary.size(), ok : invalid_program;
}
CUDASIM_EXPORT int nvrtcGetCUBIN(Program* program, char* to) {
  Lock lock(mutex);
  if (!known(program) || program->binary.empty()) return invalid_program;
  std::memcpy(to, program->binary.data(), program->binary.size());
  return ok;
}

}  // namespace cudasim
