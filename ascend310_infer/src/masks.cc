#include "masks.h"

#include <algorithm>
#include <cmath>

namespace detect {
namespace {

constexpr int kMargin = 1;  // pixels around a box

// The two cells that a pixel lies between, and their weights.
struct Blend {
  size_t cells[2];
  float weights[2];
};

// place: in cells; the mask has cells `first` to first + count - 1, others have weight 0.
Blend BlendOf(double place, int first, int count) {
  Blend blend{};
  for (int i = 0; i < 2; ++i) {
    const int cell = static_cast<int>(std::floor(place)) + i;
    if (cell >= first && cell < first + count) {
      blend.cells[i] = static_cast<size_t>(cell - first);
      blend.weights[i] = static_cast<float>(std::max(1 - std::abs(place - cell), 0.0));
    }
  }
  return blend;
}

float Between(const Blend &blend, const float *values) {
  return blend.weights[0] * values[blend.cells[0]] + blend.weights[1] * values[blend.cells[1]];
}

// The pixels along one axis, starting at `first`.
struct Axis {
  int first = 0;
  std::vector<Blend> blends;
};

Axis GridAxis(double start, double stop, int length, int cells) {
  Axis axis;
  axis.first = static_cast<int>(std::max(std::floor(start) - kMargin, 0.0));
  const int last = static_cast<int>(std::min(std::ceil(stop) + kMargin, static_cast<double>(length)));
  for (int pixel = axis.first; pixel < last; ++pixel) {
    const double place = (pixel + 0.5 - start) / (stop - start) * cells - 0.5;
    axis.blends.push_back(BlendOf(std::clamp(place, -2.0, cells + 1.0), 0, cells));
  }
  return axis;
}

// torchvision: the mask is padded by one cell of 0, and placed in a box of whole pixels that is expanded accordingly.
Axis TruncatedAxis(double begin, double end, int length, int cells) {
  const float start = static_cast<float>(begin), stop = static_cast<float>(end), half = 0.5f;
  const auto growth = static_cast<float>((cells + 2) / static_cast<double>(cells));
  const float centre = (start + stop) * half, reach = (stop - start) * half * growth;
  const int low = static_cast<int>(centre - reach), high = static_cast<int>(centre + reach);
  const int pixels = std::max(high - low + 1, 1);
  Axis axis;
  axis.first = std::max(low, 0);
  for (int pixel = axis.first; pixel < std::min(low + pixels, length); ++pixel) {
    const double place = (pixel - low + 0.5) * ((cells + 2) / static_cast<double>(pixels)) - 0.5;
    axis.blends.push_back(BlendOf(std::clamp(place, 0.0, cells + 1.0), 1, cells));
  }
  return axis;
}

// mindspore-lab: the mask is resized to the rounded size of the box and placed at its truncated corner.
Axis RoundedAxis(double start, double stop, int length, int cells) {
  Axis axis;
  axis.first = static_cast<int>(start);
  const int pixels = static_cast<int>(stop - start + 0.5);
  for (int pixel = 0; pixel < pixels && axis.first + pixel < length; ++pixel) {
    const double place = (pixel + 0.5) * (cells / static_cast<double>(pixels)) - 0.5;
    axis.blends.push_back(BlendOf(std::clamp(place, 0.0, cells - 1.0), 0, cells));
  }
  return axis;
}

Axis AxisOf(double start, double stop, int length, int cells, PasteRule rule) {
  if (!(std::isfinite(start) && std::isfinite(stop) && stop > start)) {
    return {};
  }
  if (rule == PasteRule::kRounded) {
    return RoundedAxis(start, stop, length, cells);
  }
  return rule == PasteRule::kGrid ? GridAxis(start, stop, length, cells) : TruncatedAxis(start, stop, length, cells);
}

// Collects pixels in column-major order as runs.
class Runs {
 public:
  // Adds `count` pixels that are all inside or all outside.
  void Add(bool inside, uint32_t count) {
    if (count == 0) {
      return;
    }
    if (inside != inside_) {
      runs_.push_back(0);
      inside_ = inside;
    }
    runs_.back() += count;
  }
  const std::vector<uint32_t> &runs() const { return runs_; }

 private:
  std::vector<uint32_t> runs_ = {0};
  bool inside_ = false;
};

}  // namespace

std::string CompressRuns(const std::vector<uint32_t> &runs) {
  std::string text;
  for (size_t i = 0; i < runs.size(); ++i) {
    // From the fourth run on, the difference to the run two before; 5 bits per character, signed (maskApi.c).
    int64_t value = static_cast<int64_t>(runs[i]) - (i > 2 ? static_cast<int64_t>(runs[i - 2]) : 0);
    bool more = true;
    while (more) {
      const auto bits = static_cast<char>(value & 31);
      value >>= 5;
      more = (bits & 16) != 0 ? value != -1 : value != 0;
      text += static_cast<char>((more ? bits | 32 : bits) + 48);
    }
  }
  return text;
}

std::string PasteRle(const float *mask, int side, const std::array<double, 4> &box, Size size, float threshold, PasteRule rule) {
  const Axis across = AxisOf(box[0], box[2], size.width, side, rule), down = AxisOf(box[1], box[3], size.height, side, rule);
  const auto height = static_cast<uint32_t>(size.height), rows = static_cast<uint32_t>(down.blends.size());
  const auto columns = static_cast<uint32_t>(across.blends.size());
  Runs runs;
  if (rows == 0 || columns == 0) {
    runs.Add(false, height * static_cast<uint32_t>(size.width));
    return CompressRuns(runs.runs());
  }
  if (rule == PasteRule::kRounded) {
    threshold = std::nextafter(threshold, 2.0f);
  }
  const auto top = static_cast<uint32_t>(down.first);
  runs.Add(false, static_cast<uint32_t>(across.first) * height);
  std::vector<float> column(static_cast<size_t>(side));
  for (const Blend &x : across.blends) {
    for (size_t y = 0; y < column.size(); ++y) {
      column[y] = Between(x, mask + y * column.size());
    }
    runs.Add(false, top);
    for (const Blend &y : down.blends) {
      runs.Add(Between(y, column.data()) >= threshold, 1);
    }
    runs.Add(false, height - top - rows);
  }
  runs.Add(false, (static_cast<uint32_t>(size.width) - static_cast<uint32_t>(across.first) - columns) * height);
  return CompressRuns(runs.runs());
}

}  // namespace detect
