#include "files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <stdexcept>

#include "settings.h"

namespace detect {
namespace fs = std::filesystem;
namespace {

// The extensions of infer.py, so that ids are equal. Only JPEG and PNG can be read; the others are reported as unreadable.
const std::set<std::string> kEndings = {".avif", ".bmp", ".gif", ".ico", ".jfif", ".jp2", ".jpeg", ".jpg",
                                         ".pcx",  ".pgm", ".png", ".ppm", ".tga",  ".tif", ".tiff", ".webp"};

bool IsImage(const fs::path &path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return kEndings.count(ending) > 0;
}

// Returns -1 if the name is not a number.
int64_t NumberOf(const fs::path &path) {
  const std::string stem = path.stem().string();
  const bool digits = std::all_of(stem.begin(), stem.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && !stem.empty() && stem.size() < 19 ? std::stoll(stem) : -1;
}

}  // namespace

std::vector<ImageFile> FindImages(const std::string &folder) {
  if (!fs::is_directory(folder)) {
    throw InputError("input_path: no such folder: " + folder);
  }
  std::vector<fs::path> paths;
  const auto options = fs::directory_options::skip_permission_denied;
  for (const auto &entry : fs::recursive_directory_iterator(folder, options)) {
    std::error_code error;  // for example a link to itself
    if (IsImage(entry.path()) && entry.is_regular_file(error)) {
      paths.push_back(entry.path());
    }
  }
  if (paths.empty()) {
    throw InputError("input_path: no images in " + folder);
  }
  std::sort(paths.begin(), paths.end());
  std::set<int64_t> numbers;
  for (const auto &path : paths) {
    numbers.insert(NumberOf(path));
  }
  const bool numbered = numbers.size() == paths.size() && *numbers.begin() >= 0;
  std::vector<ImageFile> files;
  for (const auto &path : paths) {
    const int64_t id = numbered ? NumberOf(path) : static_cast<int64_t>(files.size()) + 1;
    files.push_back({id, path, path.lexically_relative(folder).generic_string()});
  }
  return files;
}

std::vector<uint8_t> ReadFile(const fs::path &path) {
  std::ifstream stream(path, std::ios::binary);
  std::vector<uint8_t> data((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (!stream.good() && !stream.eof()) {
    throw std::runtime_error(std::strerror(errno));
  }
  return data;
}

}  // namespace detect
