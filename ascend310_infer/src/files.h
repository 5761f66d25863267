// The pictures of a folder, with the ids that infer.py gives them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace detect {

struct PictureFile {
  int64_t id = 0;
  std::filesystem::path path;
  std::string name;  // relative to the folder
};

// All below the folder, sorted. The number that a file is named by is its id (000000000139.jpg has 139), unless they are not
// all numbers, each another; then they are counted from 1 on. InputError where there are none.
std::vector<PictureFile> FindPictures(const std::string &folder);

// The content of a file; std::runtime_error.
std::vector<uint8_t> ReadFile(const std::filesystem::path &path);

}  // namespace detect
