// A MINDIR file run by MindSpore Lite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "include/api/model.h"

#include "settings.h"

namespace detect {

// Values of an input; `data` must outlive the call.
struct Input {
  std::vector<int64_t> shape;
  const float *data;
};

// An output of the network, converted to float32.
struct Output {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class Model {
 public:
  // device: Ascend or CPU. Throws InputError if Lite cannot load the file on this device.
  Model(const std::string &path, const std::string &device, int device_id, int threads);

  // Passes to each input of the network the values with its shape; other values are ignored.
  std::vector<Output> Run(const std::vector<Input> &inputs);

 private:
  std::string path_;
  mindspore::Model model_;
};

}  // namespace detect
