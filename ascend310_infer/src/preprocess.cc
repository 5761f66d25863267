#include "preprocess.h"

#include <algorithm>
#include <cmath>
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
    throw InputError("pad_to: expected fixed or HEIGHTxWIDTH, since an exported network has one size, got '" + pad_to + "'");
  }
  keep_ratio_ = settings.Flag("keep_ratio");
  to_rgb_ = settings.Flag("to_rgb");
  size_rounding_ = settings.Text("size_rounding");
  // Missing in older settings files.
  upright_ = !settings.Has("exif_orientation") || settings.Text("exif_orientation") != "ignore";
  exact_scale_ = settings.Has("scale_rule") && settings.Text("scale_rule") == "factor" && keep_ratio_;
  pad_black_ = settings.Has("pad_black") && settings.Flag("pad_black");
  resize_mode_ = settings.Text("resize_mode");
  if (resize_mode_ != "opencv" && resize_mode_ != "area" && resize_mode_ != "pillow" && resize_mode_ != "float") {
    throw InputError("resize_mode: expected opencv, area, pillow or float, got '" + resize_mode_ + "'");
  }
  if (resize_mode_ == "area" && !keep_ratio_) {
    throw InputError("resize_mode: area requires keep_ratio True here, since one side might grow while the other shrinks");
  }
  if (exact_scale_ && resize_mode_ != "opencv" && resize_mode_ != "area") {
    throw InputError("scale_rule: factor requires resize_mode opencv or area here, got '" + resize_mode_ + "'");
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
  const double exact = side * scale;
  const double whole = size_rounding_ == "even" ? std::nearbyint(exact) : size_rounding_ == "nearest" ? exact + 0.5 : exact;
  return std::max(1, static_cast<int>(whole));
}

double Preprocess::Scale(Size original) const {
  const double height = original.height, width = original.width;
  if (fixed_) {
    return std::min(target_.height / height, target_.width / width);
  }
  const double scale = std::min(target_.height / std::min(height, width), target_.width / std::max(height, width));
  return std::min({scale, canvas_.height / height, canvas_.width / width});
}

Size Preprocess::Resized(Size original) const {
  if (!keep_ratio_) {
    return {std::min(target_.height, canvas_.height), std::min(target_.width, canvas_.width)};
  }
  const double scale = Scale(original);
  return {Scaled(original.height, scale), Scaled(original.width, scale)};
}

NetworkInput Preprocess::operator()(const Image &image) const {
  const Size size = Resized(image.size);
  const double scale = exact_scale_ ? Scale(image.size) : 0.0;
  NetworkInput input;
  const auto pixels = static_cast<size_t>(canvas_.height) * canvas_.width;
  for (size_t plane = 0; plane < 3; ++plane) {
    input.image.insert(input.image.end(), pixels, pad_black_ ? tables_[to_rgb_ ? 2 - plane : plane][0] : 0.0f);
  }
  if (resize_mode_ == "float" && !(image.size == size)) {
    PackFloats(ResizeFloat(image, size), &input.image);
  } else if (image.size == size) {
    PackBytes(image, &input.image);
  } else if (resize_mode_ == "pillow") {
    PackBytes(ResizePillow(image, size), &input.image);
  } else {
    const bool shrinks = scale > 0 ? scale < 1 : size.height < image.size.height || size.width < image.size.width;
    const bool area = resize_mode_ == "area" && shrinks;
    PackBytes(area ? ResizeArea(image, size, scale) : ResizeOpenCv(image, size, scale), &input.image);
  }
  const double height = image.size.height, width = image.size.width;
  const double info[] = {static_cast<double>(size.height), static_cast<double>(size.width),
                         scale > 0 ? scale : size.height / height, scale > 0 ? scale : size.width / width, height, width};
  std::transform(std::begin(info), std::end(info), input.info.begin(), [](double v) { return static_cast<float>(v); });
  return input;
}

void Preprocess::PackBytes(const Image &image, std::vector<float> *planes) const {
  for (size_t c = 0; c < 3; ++c) {
    float *plane = planes->data() + (to_rgb_ ? 2 - c : c) * canvas_.height * canvas_.width;
    const uint8_t *source = image.bgr.data() + c;
    for (int y = 0; y < image.size.height; ++y, plane += canvas_.width) {
      for (int x = 0; x < image.size.width; ++x, source += 3) {
        plane[x] = tables_[c][*source];
      }
    }
  }
}

void Preprocess::PackFloats(const FloatImage &image, std::vector<float> *planes) const {
  for (size_t c = 0; c < 3; ++c) {
    const float mean = static_cast<float>(mean_[c]), std = static_cast<float>(std_[c]);
    float *plane = planes->data() + (to_rgb_ ? 2 - c : c) * canvas_.height * canvas_.width;
    const float *source = image.bgr.data() + c;
    for (int y = 0; y < image.size.height; ++y, plane += canvas_.width) {
      for (int x = 0; x < image.size.width; ++x, source += 3) {
        plane[x] = (*source - mean) / std;
      }
    }
  }
}

}  // namespace detect
