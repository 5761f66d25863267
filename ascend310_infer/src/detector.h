// Input of a picture -> detections: runs the network and what of the model is not in it.
#pragma once

#include <string>

#include "model.h"
#include "nms.h"

namespace detect {

// Detections of a picture that are written at most.
constexpr size_t kMostDetections = 100;

class Detector {
 public:
  explicit Detector(const Settings &settings);

  Detections operator()(const NetworkInput &input, Size canvas);

 private:
  Detections OfWholeNetwork(const std::vector<Output> &outputs) const;
  Detections OfAllBoxes(const std::vector<Output> &outputs) const;
  [[noreturn]] void Refuse(const std::vector<Output> &outputs) const;

  std::string path_;
  int classes_;
  ClassNms nms_;
  Model model_;
};

}  // namespace detect
