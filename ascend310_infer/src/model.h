// A MINDIR file on MindSpore Lite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "include/api/model.h"

#include "preprocess.h"

namespace detect {

// An output of the network as float32, whatever type it came in.
struct Output {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class Model {
 public:
  // device: Ascend or CPU. InputError where the file is not one that Lite reads on this device.
  Model(const std::string &path, const std::string &device, int device_id, int threads);

  // image: shape (1, 3, height, width), and image_info (1, 6) if the network takes it.
  std::vector<Output> Run(const NetworkInput &input, Size canvas);

 private:
  std::string path_;
  mindspore::Model model_;
};

}  // namespace detect
