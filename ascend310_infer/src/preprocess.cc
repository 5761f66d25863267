#include "preprocess.h"

#include <algorithm>
#include <cstdio>

namespace detect {

Preprocess::Preprocess(const Settings &settings) {
  target_ = {settings.Whole("img_height", 1), settings.Whole("img_width", 1)};
  const std::string &pad_to = settings.Text("pad_to");
  fixed_ = pad_to == "fixed";
  canvas_ = target_;
  char rest = 0;
  if (!fixed_ && (std::sscanf(pad_to.c_str(), "%dx%d%c", &canvas_.height, &canvas_.width, &rest) != 2 ||
                  canvas_.height < 1 || canvas_.width < 1)) {
    throw InputError("pad_to: expected fixed or HEIGHTxWIDTH, got '" + pad_to + "': an exported network takes one size");
  }
  keep_ratio_ = settings.Flag("keep_ratio");
  to_rgb_ = settings.Flag("to_rgb");
  nearest_ = settings.Text("size_rounding") == "nearest";
  // Older files of settings do not have it.
  upright_ = !settings.Has("exif_orientation") || settings.Text("exif_orientation") != "ignore";
  resize_mode_ = settings.Text("resize_mode");
  if (resize_mode_ != "opencv" && resize_mode_ != "pillow" && resize_mode_ != "float") {
    throw InputError("resize_mode: expected opencv, pillow or float, got '" + resize_mode_ + "'");
  }
  const auto mean = settings.Numbers("image_mean", 3), std = settings.Numbers("image_std", 3);
  for (size_t c = 0; c < 3; ++c) {
    mean_[c] = mean[to_rgb_ ? 2 - c : c];
    std_[c] = std[to_rgb_ ? 2 - c : c];
    for (size_t value = 0; value < 256; ++value) {
      tables_[c][value] = static_cast<float>((static_cast<double>(value) - mean_[c]) / std_[c]);
    }
  }
}

int Preprocess::Scaled(int side, double scale) const {
  return std::max(1, static_cast<int>(side * scale + (nearest_ ? 0.5 : 0.0)));
}

Size Preprocess::Resized(Size original) const {
  const double height = original.height, width = original.width;
  if (!keep_ratio_) {
    return {std::min(target_.height, canvas_.height), std::min(target_.width, canvas_.width)};
  }
  double scale = 0;
  if (fixed_) {
    scale = std::min(target_.height / height, target_.width / width);
  } else {
    scale = std::min(target_.height / std::min(height, width), target_.width / std::max(height, width));
    scale = std::min({scale, canvas_.height / height, canvas_.width / width});
  }
  return {Scaled(original.height, scale), Scaled(original.width, scale)};
}

NetworkInput Preprocess::operator()(const Picture &picture) const {
  const Size size = Resized(picture.size);
  NetworkInput input;
  input.image.assign(static_cast<size_t>(3) * canvas_.height * canvas_.width, 0.0f);
  if (resize_mode_ == "float" && !(picture.size == size)) {
    PackFloats(ResizeFloat(picture, size), &input.image);
  } else if (picture.size == size) {
    PackBytes(picture, &input.image);
  } else {
    PackBytes(resize_mode_ == "pillow" ? ResizePillow(picture, size) : ResizeOpenCv(picture, size), &input.image);
  }
  const double height = picture.size.height, width = picture.size.width;
  const double info[] = {static_cast<double>(size.height), static_cast<double>(size.width),
                         size.height / height, size.width / width, height, width};
  std::transform(std::begin(info), std::end(info), input.info.begin(), [](double v) { return static_cast<float>(v); });
  return input;
}

void Preprocess::PackBytes(const Picture &picture, std::vector<float> *image) const {
  for (size_t c = 0; c < 3; ++c) {
    float *plane = image->data() + (to_rgb_ ? 2 - c : c) * canvas_.height * canvas_.width;
    const uint8_t *source = picture.bgr.data() + c;
    for (int y = 0; y < picture.size.height; ++y, plane += canvas_.width) {
      for (int x = 0; x < picture.size.width; ++x, source += 3) {
        plane[x] = tables_[c][*source];
      }
    }
  }
}

void Preprocess::PackFloats(const FloatPicture &picture, std::vector<float> *image) const {
  for (size_t c = 0; c < 3; ++c) {
    const float mean = static_cast<float>(mean_[c]), std = static_cast<float>(std_[c]);
    float *plane = image->data() + (to_rgb_ ? 2 - c : c) * canvas_.height * canvas_.width;
    const float *source = picture.bgr.data() + c;
    for (int y = 0; y < picture.size.height; ++y, plane += canvas_.width) {
      for (int x = 0; x < picture.size.width; ++x, source += 3) {
        plane[x] = (*source - mean) / std;
      }
    }
  }
}

}  // namespace detect
