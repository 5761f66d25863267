// Writes the network's input for each image named on stdin, one per line: image_info and image as raw float32, or one NaN if the
// image cannot be read. Tests compare it with the Python implementation.
#include <cmath>
#include <cstdio>
#include <iostream>

#include "../src/files.h"
#include "../src/preprocess.h"

int main(int count, char **words) {
  using namespace detect;
  try {
    const Settings settings(std::vector<std::string>(words + 1, words + count), {"settings_path", "resize_mode", "img_height",
                                                                                 "img_width", "keep_ratio", "pad_to"});
    const Preprocess preprocess(settings);
    for (std::string path; std::getline(std::cin, path);) {
      NetworkInput input;
      try {
        input = preprocess(Decode(ReadFile(path), preprocess.upright()));
      } catch (const std::runtime_error &error) {
        std::fprintf(stderr, "%s: %s\n", path.c_str(), error.what());
        const float none = NAN;
        std::fwrite(&none, sizeof none, 1, stdout);
        continue;
      }
      std::fwrite(input.info.data(), sizeof(float), input.info.size(), stdout);
      std::fwrite(input.image.data(), sizeof(float), input.image.size(), stdout);
    }
  } catch (const std::exception &error) {
    std::fprintf(stderr, "dump_input: error: %s\n", error.what());
    return 2;
  }
  return 0;
}
