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
    throw InputError("roi_strides: expected numbers >= 1");
  }
  if (borders_.size() + 1 != strides_.size()) {
    throw InputError("roi_borders: expected " + std::to_string(strides_.size() - 1) + " numbers, one fewer than roi_strides");
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
        continue;  // more than a cell outside the map
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

RoiAlign::Region RoiAlign::RegionOf(const std::vector<const Output *> &features, const Box &roi) const {
  const size_t level = Level(roi);
  const float scale = static_cast<float>(1.0 / strides_[level]), shift = aligned_ ? 0.5f : 0.0f;
  const auto &shape = features[level]->shape;
  return {level, AxisTaps(roi[1] * scale - shift, roi[3] * scale - shift, static_cast<int>(shape[2])),
          AxisTaps(roi[0] * scale - shift, roi[2] * scale - shift, static_cast<int>(shape[3]))};
}

// plane: one channel of the map, rows of `width` cells.
void RoiAlign::Pool(const float *plane, size_t width, const Region &region, float *out) {
  for (const auto &row : region.rows) {
    for (const auto &column : region.columns) {
      float sum = 0;
      for (const Tap &y : row) {
        const float *cells = plane + static_cast<size_t>(y.cell) * width;
        float line = 0;
        for (const Tap &x : column) {
          line += x.weight * cells[x.cell];
        }
        sum += y.weight * line;
      }
      *out++ = sum;
    }
  }
}

std::vector<float> RoiAlign::operator()(const std::vector<const Output *> &features, const std::vector<Box> &rois,
                                        size_t rows) const {
  std::vector<Region> regions;
  for (const Box &roi : rois) {
    regions.push_back(RegionOf(features, roi));
  }
  const auto channels = static_cast<size_t>(features[0]->shape[1]), bins = static_cast<size_t>(bins_ * bins_);
  const auto threads = static_cast<size_t>(threads_);
  std::vector<float> pooled(rows * channels * bins);
  // Each thread processes some channels, with all RoIs of a channel in turn, so that the channel's map stays in the cache.
  auto work = [&](size_t thread) {
    for (size_t c = thread * channels / threads; c < (thread + 1) * channels / threads; ++c) {
      for (size_t i = 0; i < regions.size(); ++i) {
        const Output &feature = *features[regions[i].level];
        const auto width = static_cast<size_t>(feature.shape[3]), cells = static_cast<size_t>(feature.shape[2]) * width;
        Pool(feature.values.data() + c * cells, width, regions[i], pooled.data() + (i * channels + c) * bins);
      }
    }
  };
  std::vector<std::future<void>> helpers;
  for (size_t i = 1; i < threads; ++i) {
    helpers.push_back(std::async(std::launch::async, work, i));
  }
  work(0);
  for (auto &helper : helpers) {
    helper.get();
  }
  return pooled;
}

}  // namespace detect
