// A MINDIR file on MindSpore Lite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "include/api/model.h"

#include "settings.h"

namespace detect {

// Values of an input; `data` outlives the call.
struct Input {
  std::vector<int64_t> shape;
  const float *data;
};

// An output of the network as float32, whatever type it came in.
struct Output {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

class Model {
 public:
  // device: Ascend or CPU. InputError where the file is not one that Lite reads on this device.
  Model(const std::string &path, const std::string &device, int device_id, int threads);

  // Each of the network's inputs gets the values of the same shape; values that it does not take are left out.
  std::vector<Output> Run(const std::vector<Input> &inputs);

 private:
  std::string path_;
  mindspore::Model model_;
};

}  // namespace detect
