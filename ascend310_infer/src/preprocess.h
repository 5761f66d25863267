// Preprocessing of images, equal to src/model_utils/data/transforms.py of the models.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "image.h"
#include "settings.h"

namespace detect {

// Resized height and width, scale_y, scale_x (resized / original), original height and width.
using ImageInfo = std::array<float, 6>;

struct NetworkInput {
  std::vector<float> image;  // 3 x height x width of the canvas, normalised and padded with the mean or black
  ImageInfo info{};
};

class Preprocess {
 public:
  explicit Preprocess(const Settings &settings);

  NetworkInput operator()(const Image &image) const;
  // Returns the size to which an image is resized.
  Size Resized(Size original) const;
  Size canvas() const { return canvas_; }
  // Whether to apply the EXIF orientation.
  bool upright() const { return upright_; }

 private:
  // Returns the resize factor of an image if the aspect ratio is kept.
  double Scale(Size original) const;
  int Scaled(int side, double scale) const;
  void PackBytes(const Image &image, std::vector<float> *planes) const;
  void PackFloats(const FloatImage &image, std::vector<float> *planes) const;

  Size target_, canvas_;
  bool fixed_, keep_ratio_, to_rgb_, upright_, exact_scale_, pad_black_;
  std::string resize_mode_, size_rounding_;
  std::array<double, 3> mean_{}, std_{};            // in BGR order
  std::array<std::array<float, 256>, 3> tables_{};  // (value - mean) / std for each byte value
};

}  // namespace detect
