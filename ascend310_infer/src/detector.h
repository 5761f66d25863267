// From a preprocessed image to detections: runs the network and those parts of the model that are not in it.
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
  bool masks_;  // whether the model has masks
  std::unique_ptr<TwoStage> two_stage_;  // for a network exported in parts; otherwise the next two are set
  std::unique_ptr<ClassNms> nms_;        // for a network without NMS; null unless the model is RefineDet
  std::unique_ptr<Model> model_;
};

}  // namespace detect
