#include "image.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace cudasim {
namespace {

constexpr char ptx_magic[] = "//cudasim-ptx ", binary_magic[] = "//cudasim-bin ";
constexpr size_t magic_length = sizeof ptx_magic - 1;
static_assert(sizeof ptx_magic == sizeof binary_magic);

/// What must have made an image: programs keep them, and the simulator changes.
constexpr char build[] = CUDASIM_BUILD " ";

}  // namespace

std::string write_image(const Image& image) {
  return (image.binary ? binary_magic : ptx_magic) + std::to_string(image.architecture) + ' ' + build + image.path + '\n';
}

bool read_image(const char* data, Image* image) {
  image->binary = std::strncmp(data, binary_magic, magic_length) == 0;
  if (!image->binary && std::strncmp(data, ptx_magic, magic_length) != 0) return false;
  char* rest = nullptr;
  image->architecture = static_cast<int>(std::strtol(data + magic_length, &rest, 10));
  const char* end = std::strchr(rest, '\n');
  if (*rest != ' ' || !end) return false;
  std::string path(rest + 1, static_cast<size_t>(end - rest - 1));
  if (path.compare(0, sizeof build - 1, build) != 0) return false;
  image->path = path.substr(sizeof build - 1);
  return true;
}

bool read_file(const std::string& path, std::string* text) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  *text = all.str();
  return file.good();
}

}  // namespace cudasim
