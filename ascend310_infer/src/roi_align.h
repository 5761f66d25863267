// RoIAlign on a feature pyramid, as src/FasterRcnn/roi_align.py of the models.
#pragma once

#include <vector>

#include "image.h"
#include "model.h"
#include "nms.h"

namespace detect {

class RoiAlign {
 public:
  // out_size: bins per side.
  RoiAlign(const Settings &settings, int out_size);

  // Returns whether the maps have equal channels and the sizes that the strides give for an input of `canvas`.
  bool Fits(const std::vector<const Output *> &features, Size canvas) const;
  // features: (1, C, H_l, W_l) per level, as checked by Fits -> rows x C x S x S. Each RoI is pooled from the level for its size;
  // further rows are 0.
  std::vector<float> operator()(const std::vector<const Output *> &features, const std::vector<Box> &rois, size_t rows) const;

  // Returns the index of the level of an RoI.
  size_t Level(const Box &roi) const;
  int bins() const { return bins_; }

 private:
  // A cell that contributes to a bin along one axis, and its weight.
  struct Tap {
    int cell;
    float weight;
  };
  using Taps = std::vector<std::vector<Tap>>;  // per bin

  // The cells that an RoI is pooled from, the same for all channels.
  struct Region {
    size_t level;
    Taps rows, columns;
  };

  Taps AxisTaps(float start, float end, int length) const;
  Region RegionOf(const std::vector<const Output *> &features, const Box &roi) const;
  static void Pool(const float *plane, size_t width, const Region &region, float *out);

  int bins_, samples_, threads_;
  bool aligned_;
  std::vector<double> strides_, borders_;
  float unit_, inside_, offset_;
};

}  // namespace detect
