// The network's input of a picture, equal to what src/model_utils/data/transforms.py of the models makes.
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
  std::vector<float> image;  // 3 x height x width of the canvas, normalised; the mean, or black, around the picture
  ImageInfo info{};
};

class Preprocess {
 public:
  explicit Preprocess(const Settings &settings);

  NetworkInput operator()(const Picture &picture) const;
  // What a picture is resized to.
  Size Resized(Size original) const;
  Size canvas() const { return canvas_; }
  // Whether pictures are to be turned by their EXIF orientation.
  bool upright() const { return upright_; }

 private:
  // What the sides of a picture are multiplied by, where they keep their ratio.
  double Scale(Size original) const;
  int Scaled(int side, double scale) const;
  void PackBytes(const Picture &picture, std::vector<float> *image) const;
  void PackFloats(const FloatPicture &picture, std::vector<float> *image) const;

  Size target_, canvas_;
  bool fixed_, keep_ratio_, to_rgb_, upright_, exact_scale_, pad_black_;
  std::string resize_mode_, size_rounding_;
  std::array<double, 3> mean_{}, std_{};            // of blue, green, red
  std::array<std::array<float, 256>, 3> tables_{};  // (value - mean) / std of the values of a byte
};

}  // namespace detect
