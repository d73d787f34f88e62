// The PTX or CUBIN of the simulated NVRTC: one line that names the shared object with the compiled
// kernels.
#pragma once
#include <string>

namespace cudasim {

struct Image {
  /// True for a CUBIN, which is for one architecture; false for PTX, which is for that and all
  /// later ones.
  bool binary = false;
  int architecture = 0;
  /// The build of the simulator that created the image.
  std::string build;
  std::string path;
};

std::string write_image(const Image& image);
/// Returns false if `data` is not an image. Reads at most one line.
bool read_image(const char* data, Image* image);

bool read_file(const std::string& path, std::string* text);

}  // namespace cudasim
