#include "detector.h"

#include <algorithm>
#include <cmath>

namespace detect {
namespace {

// Returns whether the shape is (1, rows, ...) with `rank` dimensions.
bool Fits(const Output &output, size_t rank, size_t rows) {
  return output.shape.size() == rank && output.shape[0] == 1 && output.shape[1] == static_cast<int64_t>(rows);
}

}  // namespace

Detector::Detector(const Settings &settings)
    : path_(settings.Text("mindir_path")),
      classes_(settings.Whole("num_classes", 2)),
      masks_(settings.Has("mask_paste")) {
  if (settings.Has("test_nms_total")) {
    nms_ = std::make_unique<ClassNms>(settings);
  } else if (IsDensePart(path_)) {
    two_stage_ = std::make_unique<TwoStage>(settings);
    return;
  }
  model_ = std::make_unique<Model>(path_, settings.Text("device_type"), settings.Whole("device_id", 0),
                                   settings.Threads("threads"));
}

Detections Detector::operator()(const NetworkInput &input, Size canvas) {
  Detections found = two_stage_ ? (*two_stage_)(input, canvas) : OfOneFile(input, canvas);
  for (int32_t label : found.labels) {
    if (label < 1 || label >= classes_) {
      throw InputError(path_ + ": the network returned label " + std::to_string(label) + ", but the configuration has " +
                       std::to_string(classes_ - 1) + " classes");
    }
  }
  return found;
}

Detections Detector::OfOneFile(const NetworkInput &input, Size canvas) {
  const auto outputs = model_->Run({{{1, 3, canvas.height, canvas.width}, input.image.data()}, {{1, 6}, input.info.data()}});
  return outputs.size() == (masks_ ? 5 : 4) ? OfWholeNetwork(outputs) : OfAllBoxes(outputs);
}

// Outputs: boxes (1, D, 4), scores, labels and valid (1, D); with masks also masks (1, D, S, S).
Detections Detector::OfWholeNetwork(const std::vector<Output> &outputs) const {
  const size_t count = outputs[1].values.size();
  const bool same = Fits(outputs[0], 3, count) && outputs[0].values.size() == 4 * count &&
                    std::all_of(outputs.begin() + 1, outputs.begin() + 4, [&](const Output &o) { return Fits(o, 2, count); });
  if (!same || (masks_ && (!Fits(outputs[4], 4, count) || outputs[4].shape[2] != outputs[4].shape[3]))) {
    Refuse(outputs);
  }
  Detections found;
  found.mask_side = masks_ ? static_cast<int>(outputs[4].shape[2]) : 0;
  const auto cells = static_cast<std::ptrdiff_t>(found.mask_side) * found.mask_side;
  for (size_t i = 0; i < count; ++i) {
    const float *row = outputs[0].values.data() + 4 * i, score = outputs[1].values[i];
    if (outputs[3].values[i] != 0 && !IsFinite(row, score)) {
      ++found.not_finite;
    } else if (outputs[3].values[i] != 0) {
      found.Add({{row[0], row[1], row[2], row[3]}, score, static_cast<int32_t>(std::lround(outputs[2].values[i]))});
      if (masks_) {
        const auto mask = outputs[4].values.begin() + static_cast<std::ptrdiff_t>(i) * cells;
        found.masks.insert(found.masks.end(), mask, mask + cells);
      }
    }
  }
  return found;
}

// Outputs: boxes (1, A, 4) and scores (1, A, K) of the foreground classes.
Detections Detector::OfAllBoxes(const std::vector<Output> &outputs) const {
  const bool fits = nms_ && outputs.size() == 2 && outputs[0].shape.size() == 3 && outputs[1].shape.size() == 3 &&
                    outputs[0].shape[2] == 4 && outputs[0].shape[1] == outputs[1].shape[1] &&
                    outputs[0].shape[0] == 1 && outputs[1].shape[0] == 1;
  if (!fits) {
    Refuse(outputs);
  }
  RequireClasses(path_, outputs[1].shape[2], classes_ - 1);
  return (*nms_)(outputs[0].values, outputs[1].values);
}

void Detector::Refuse(const std::vector<Output> &outputs) const {
  throw InputError(path_ + ": the network has " + std::to_string(outputs.size()) +
                   " outputs, unlike those of this model's export.py: was it exported from another model?");
}

}  // namespace detect
