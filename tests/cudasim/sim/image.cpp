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

}  // namespace

std::string write_image(const Image& image) {
  return (image.binary ? binary_magic : ptx_magic) + std::to_string(image.architecture) + ' ' +
         image.build + ' ' + image.path + '\n';
}

bool read_image(const char* data, Image* image) {
  image->binary = std::strncmp(data, binary_magic, magic_length) == 0;
  if (!image->binary && std::strncmp(data, ptx_magic, magic_length) != 0) return false;
  char* rest = nullptr;
  image->architecture = static_cast<int>(std::strtol(data + magic_length, &rest, 10));
  const char* end = std::strchr(rest, '\n');
  if (*rest != ' ' || !end) return false;
  const std::string words(rest + 1, static_cast<size_t>(end - rest - 1));
  const size_t space = words.find(' ');
  if (space == std::string::npos) return false;
  image->build = words.substr(0, space);
  image->path = words.substr(space + 1);
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
