// Input of a picture -> detections: runs the network and what of the model is not in it.
#pragma once

#include <memory>
#include <string>

#include "model.h"
#include "nms.h"
#include "two_stage.h"

namespace detect {

class Detector {
 public:
  explicit Detector(const Settings &settings);

  Detections operator()(const NetworkInput &input, Size canvas);

 private:
  Detections OfOneFile(const NetworkInput &input, Size canvas);
  Detections OfWholeNetwork(const std::vector<Output> &outputs) const;
  Detections OfAllBoxes(const std::vector<Output> &outputs) const;
  [[noreturn]] void Refuse(const std::vector<Output> &outputs) const;

  std::string path_;
  int classes_;
  bool masks_;  // whether the model has them
  std::unique_ptr<TwoStage> two_stage_;  // of a network in parts; else the next two
  std::unique_ptr<ClassNms> nms_;        // of a network without NMS; none where the configuration is of another model
  std::unique_ptr<Model> model_;
};

}  // namespace detect
