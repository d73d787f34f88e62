// What the simulated NVRTC returns as PTX or CUBIN: one line that names the shared object with the compiled kernels.
#pragma once
#include <string>

namespace cudasim {

struct Image {
  /// For one architecture, as a CUBIN; else for it and all later ones, as PTX.
  bool binary = false;
  int architecture = 0;
  /// The build of the simulator that made it.
  std::string build;
  std::string path;
};

std::string write_image(const Image& image);
/// False if it is something else. Reads no further than the line's end.
bool read_image(const char* data, Image* image);

bool read_file(const std::string& path, std::string* text);

}  // namespace cudasim
