#include "roi_align.h"

#include <algorithm>
#include <cmath>
#include <future>

namespace detect {

RoiAlign::RoiAlign(const Settings &settings, int out_size)
    : bins_(out_size),
      samples_(settings.Whole("roi_sample_num", 0)),
      threads_(settings.Threads("threads")),
      aligned_(settings.Flag("roi_aligned")),
      strides_(settings.Numbers("roi_strides")),
      borders_(settings.Numbers("roi_borders")),
      unit_(static_cast<float>(settings.Number("roi_unit"))),
      inside_(static_cast<float>(settings.Number("roi_inside"))),
      offset_(static_cast<float>(settings.Number("roi_offset"))) {
  if (strides_.empty() || std::any_of(strides_.begin(), strides_.end(), [](double stride) { return stride < 1; })) {
    throw InputError("roi_strides: expected numbers from 1 on");
  }
  if (borders_.size() + 1 != strides_.size()) {
    throw InputError("roi_borders: expected a number less than of roi_strides, " + std::to_string(strides_.size() - 1));
  }
}

bool RoiAlign::Fits(const std::vector<const Output *> &features, Size canvas) const {
  bool fits = features.size() == strides_.size();
  for (size_t i = 0; i < features.size() && fits; ++i) {
    const auto &shape = features[i]->shape;
    fits = shape.size() == 4 && shape[0] == 1 && shape[1] > 0 && shape[1] == features[0]->shape[1] &&
           static_cast<double>(shape[2]) == std::ceil(canvas.height / strides_[i]) &&
           static_cast<double>(shape[3]) == std::ceil(canvas.width / strides_[i]);
  }
  return fits;
}

size_t RoiAlign::Level(const Box &roi) const {
  const float width = std::max(roi[2] - roi[0] + offset_, 0.0f), height = std::max(roi[3] - roi[1] + offset_, 0.0f);
  const float ratio = std::sqrt(width * height) / unit_ + inside_;
  return static_cast<size_t>(
      std::count_if(borders_.begin(), borders_.end(), [&](double border) { return ratio >= static_cast<float>(border); }));
}

// start, end: of the RoI, in cells; length: of the map.
RoiAlign::Taps RoiAlign::AxisTaps(float start, float end, int length) const {
  const float size = std::max(end - start, aligned_ ? 0.0f : 1.0f), step = size / static_cast<float>(bins_);
  const int count = samples_ > 0 ? samples_ : static_cast<int>(std::ceil(step));
  const float gap = step / static_cast<float>(std::max(count, 1)), share = 1.0f / static_cast<float>(std::max(count, 1));
  const float last = static_cast<float>(length - 1);
  Taps taps(static_cast<size_t>(bins_));
  for (int bin = 0; bin < bins_; ++bin) {
    for (int i = 0; i < count; ++i) {
      float point = start + static_cast<float>(bin) * step + (static_cast<float>(i) + 0.5f) * gap;
      if (!(point >= -1.0f && point <= static_cast<float>(length))) {
        continue;  // more than a cell outside of the map
      }
      point = std::min(std::max(point, 0.0f), last);
      const int low = static_cast<int>(point);
      const float part = point - static_cast<float>(low);
      taps[static_cast<size_t>(bin)].push_back({low, share * (1.0f - part)});
      taps[static_cast<size_t>(bin)].push_back({std::min(low + 1, length - 1), share * part});
    }
  }
  return taps;
}

void RoiAlign::Pool(const Output &feature, const Box &roi, float scale, float *out) const {
  const int height = static_cast<int>(feature.shape[2]), width = static_cast<int>(feature.shape[3]);
  const float shift = aligned_ ? 0.5f : 0.0f;
  const Taps rows = AxisTaps(roi[1] * scale - shift, roi[3] * scale - shift, height);
  const Taps columns = AxisTaps(roi[0] * scale - shift, roi[2] * scale - shift, width);
  const float *plane = feature.values.data();
  for (int64_t c = 0; c < feature.shape[1]; ++c, plane += height * width) {
    for (const auto &row : rows) {
      for (const auto &column : columns) {
        float sum = 0;
        for (const Tap &y : row) {
          float line = 0;
          for (const Tap &x : column) {
            line += x.weight * plane[y.cell * width + x.cell];
          }
          sum += y.weight * line;
        }
        *out++ = sum;
      }
    }
  }
}

std::vector<float> RoiAlign::operator()(const std::vector<const Output *> &features, const std::vector<Box> &rois) const {
  const size_t each = static_cast<size_t>(features[0]->shape[1]) * static_cast<size_t>(bins_ * bins_);
  std::vector<float> pooled(rois.size() * each);
  auto work = [&](size_t first) {
    for (size_t i = first; i < rois.size(); i += static_cast<size_t>(threads_)) {
      const size_t level = Level(rois[i]);
      Pool(*features[level], rois[i], static_cast<float>(1.0 / strides_[level]), pooled.data() + i * each);
    }
  };
  std::vector<std::future<void>> helpers;
  for (int i = 1; i < threads_; ++i) {
    helpers.push_back(std::async(std::launch::async, work, static_cast<size_t>(i)));
  }
  work(0);
  for (auto &helper : helpers) {
    helper.get();
  }
  return pooled;
}

}  // namespace detect
