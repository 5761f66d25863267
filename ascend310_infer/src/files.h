// The images of a folder, with the ids that infer.py assigns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace detect {

struct ImageFile {
  int64_t id = 0;
  std::filesystem::path path;
  std::string name;  // relative to the folder
};

// Returns all images below the folder, sorted. Ids are the numbers in the file names (139 for 000000000139.jpg) if all names are
// different numbers, otherwise 1, 2, ... Throws InputError if there is no image.
std::vector<ImageFile> FindImages(const std::string &folder);

// Returns the content of a file; throws std::runtime_error.
std::vector<uint8_t> ReadFile(const std::filesystem::path &path);

}  // namespace detect
