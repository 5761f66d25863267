#include "masks.h"

#include <algorithm>
#include <cmath>

namespace detect {
namespace {

constexpr int kMargin = 1;  // pixels around a box

// Along one axis: pixels from `first` on, and the weights of the mask's cells in each of them.
struct Axis {
  int first = 0;
  std::vector<std::vector<float>> weights;
};

Axis GridAxis(double start, double stop, int length, int cells) {
  Axis axis;
  axis.first = static_cast<int>(std::max(std::floor(start) - kMargin, 0.0));
  const int last = static_cast<int>(std::min(std::ceil(stop) + kMargin, static_cast<double>(length)));
  for (int pixel = axis.first; pixel < last; ++pixel) {
    const double place = (pixel + 0.5 - start) / (stop - start) * cells - 0.5;
    std::vector<float> row;
    for (int cell = 0; cell < cells; ++cell) {
      row.push_back(static_cast<float>(std::max(1 - std::abs(place - cell), 0.0)));
    }
    axis.weights.push_back(std::move(row));
  }
  return axis;
}

// The mask has a rim of one cell of 0, and lies in a box of whole pixels that grows with it.
Axis TruncatedAxis(double begin, double end, int length, int cells) {
  const float start = static_cast<float>(begin), stop = static_cast<float>(end), half = 0.5f;
  const auto growth = static_cast<float>((cells + 2) / static_cast<double>(cells));
  const float centre = (start + stop) * half, reach = (stop - start) * half * growth;
  const int low = static_cast<int>(centre - reach), high = static_cast<int>(centre + reach);
  const int pixels = std::max(high - low + 1, 1);
  Axis axis;
  axis.first = std::max(low, 0);
  for (int pixel = axis.first; pixel < std::min(low + pixels, length); ++pixel) {
    double place = std::max((pixel - low + 0.5) * ((cells + 2) / static_cast<double>(pixels)) - 0.5, 0.0);
    place = std::min(place, static_cast<double>(cells + 1));
    std::vector<float> row;
    for (int cell = 1; cell <= cells; ++cell) {
      row.push_back(static_cast<float>(std::max(1 - std::abs(place - cell), 0.0)));
    }
    axis.weights.push_back(std::move(row));
  }
  return axis;
}

Axis AxisOf(double start, double stop, int length, int cells, PasteRule rule) {
  if (!(std::isfinite(start) && std::isfinite(stop) && stop > start)) {
    return {};
  }
  return rule == PasteRule::kGrid ? GridAxis(start, stop, length, cells) : TruncatedAxis(start, stop, length, cells);
}

// Collects pixels, column by column, as runs.
class Runs {
 public:
  // `count` pixels of one kind.
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
    // From the third on the difference to the run of its kind before; 5 bits a character, with a sign.
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
  const auto height = static_cast<uint32_t>(size.height), rows = static_cast<uint32_t>(down.weights.size());
  const auto columns = static_cast<uint32_t>(across.weights.size());
  Runs runs;
  if (rows == 0 || columns == 0) {
    runs.Add(false, height * static_cast<uint32_t>(size.width));
    return CompressRuns(runs.runs());
  }
  const auto top = static_cast<uint32_t>(down.first);
  runs.Add(false, static_cast<uint32_t>(across.first) * height);
  std::vector<float> column(static_cast<size_t>(side));
  for (const auto &weights : across.weights) {
    for (int y = 0; y < side; ++y) {
      float sum = 0;
      for (int x = 0; x < side; ++x) {
        sum += weights[static_cast<size_t>(x)] * mask[y * side + x];
      }
      column[static_cast<size_t>(y)] = sum;
    }
    runs.Add(false, top);
    for (const auto &row : down.weights) {
      float sum = 0;
      for (size_t y = 0; y < column.size(); ++y) {
        sum += row[y] * column[y];
      }
      runs.Add(sum >= threshold, 1);
    }
    runs.Add(false, height - top - rows);
  }
  runs.Add(false, (static_cast<uint32_t>(size.width) - static_cast<uint32_t>(across.first) - columns) * height);
  return CompressRuns(runs.runs());
}

}  // namespace detect
