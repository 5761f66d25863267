// RoIAlign on a feature pyramid, as src/FasterRcnn/roi_align.py of the models does it.
#pragma once

#include <vector>

#include "image.h"
#include "model.h"
#include "nms.h"

namespace detect {

class RoiAlign {
 public:
  // out_size: bins along a side.
  RoiAlign(const Settings &settings, int out_size);

  // Whether these are maps of as many channels each, of the sizes that the strides make of an input of `canvas`.
  bool Fits(const std::vector<const Output *> &features, Size canvas) const;
  // features that fit: (1, C, H_l, W_l) per level -> rows x C x S x S, each RoI pooled from the level that its size asks for;
  // 0 in the rows after them.
  std::vector<float> operator()(const std::vector<const Output *> &features, const std::vector<Box> &rois, size_t rows) const;

  // Index of the level of a RoI.
  size_t Level(const Box &roi) const;
  int bins() const { return bins_; }

 private:
  // Cells next to the samples of a bin along one axis, and what they count.
  struct Tap {
    int cell;
    float weight;
  };
  using Taps = std::vector<std::vector<Tap>>;  // of each bin

  // What a RoI is pooled from, of every channel.
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
