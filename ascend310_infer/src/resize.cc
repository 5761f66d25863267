// Bilinear resizing equal to OpenCV's (bit by bit) and Pillow's (except for occasional rounding).
#include <algorithm>
#include <cmath>

#include "image.h"

namespace detect {
namespace {

constexpr int kChannels = 3;

// The two pixels that an output pixel lies between, and the weight of the second.
struct Tap {
  int first;
  int second;
  float weight;
};

// hold: outside the image, give the border pixel all weight, as OpenCV does along x; along y it uses the border row twice.
std::vector<Tap> Taps(int from, int to, bool hold, double factor = 0) {
  const double scale = 1.0 / (factor > 0 ? factor : static_cast<double>(to) / from);
  std::vector<Tap> taps(static_cast<size_t>(to));
  for (int i = 0; i < to; ++i) {
    float place = static_cast<float>((i + 0.5) * scale - 0.5);
    int first = static_cast<int>(std::floor(place));
    float weight = place - static_cast<float>(first);
    if (hold && first < 0) {
      first = 0;
      weight = 0;
    }
    if (hold && first + 1 >= from) {
      first = from - 1;
      weight = 0;
    }
    taps[static_cast<size_t>(i)] = {std::clamp(first, 0, from - 1), std::clamp(first + 1, 0, from - 1), weight};
  }
  return taps;
}

// When both sides are halved, OpenCV takes the mean of 2x2 pixels.
bool Halves(Size from, Size to) { return from.height == 2 * to.height && from.width == 2 * to.width; }

template <typename Out, typename Mean>
void Halve(const Image &image, Size size, Out *out, const Mean &mean) {
  const size_t stride = static_cast<size_t>(image.size.width) * kChannels;
  for (int y = 0; y < size.height; ++y) {
    const uint8_t *row = image.bgr.data() + 2 * static_cast<size_t>(y) * stride;
    for (int x = 0; x < size.width; ++x, row += 2 * kChannels) {
      for (int c = 0; c < kChannels; ++c) {
        *out++ = mean(row[c] + row[c + kChannels] + row[stride + c] + row[stride + c + kChannels]);
      }
    }
  }
}

// Calls `combine` for each output row with the two input rows it lies between, resized along x. Rows are reused where possible.
template <typename Value, typename RowFunction, typename Combine>
void ResizeRows(Size from, Size to, double factor, const RowFunction &row_of, const Combine &combine) {
  const auto taps = Taps(from.height, to.height, false, factor);
  std::vector<Value> rows[2];
  int held[2] = {-1, -1};
  for (int y = 0; y < to.height; ++y) {
    const Tap &tap = taps[static_cast<size_t>(y)];
    if (held[0] != tap.first && held[1] == tap.first) {
      std::swap(rows[0], rows[1]);
      std::swap(held[0], held[1]);
    }
    const int wanted[2] = {tap.first, tap.second};
    for (int i = 0; i < 2; ++i) {
      if (held[i] != wanted[i]) {
        rows[i].resize(static_cast<size_t>(to.width) * kChannels);
        row_of(wanted[i], rows[i].data());
        held[i] = wanted[i];
      }
    }
    combine(y, tap.weight, rows[0], rows[1]);
  }
}

constexpr int kWeightOne = 2048;  // fixed point with 11 bits

int Fixed(float weight) { return static_cast<int>(std::lrint(weight * kWeightOne)); }

constexpr int kPillowBits = 32 - 8 - 2;

// Weights of a triangle filter as wide as an output pixel, or an input pixel if that is larger.
struct Window {
  int first;
  std::vector<int> weights;
};

std::vector<Window> Windows(int from, int to) {
  const double scale = static_cast<double>(from) / to;
  const double support = std::max(scale, 1.0);
  std::vector<Window> windows;
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int last = std::min(static_cast<int>(centre + support + 0.5), from);
    std::vector<double> weights;
    double sum = 0;
    for (int x = first; x < last; ++x) {
      weights.push_back(std::max(0.0, 1 - std::abs((x - centre + 0.5) * (1 / support))));
      sum += weights.back();
    }
    Window window = {first, {}};
    for (double weight : weights) {
      window.weights.push_back(static_cast<int>(0.5 + weight / sum * (1 << kPillowBits)));
    }
    windows.push_back(std::move(window));
  }
  return windows;
}

// An input pixel covered by an output pixel, and its weight in the mean.
struct Share {
  int target, source;
  float weight;
};

// OpenCV ignores overlaps below a thousandth of a pixel.
std::vector<Share> Shares(int from, int to, double scale) {
  constexpr double kLeast = 1e-3;
  std::vector<Share> shares;
  for (int i = 0; i < to; ++i) {
    const double start = i * scale, stop = start + scale, covered = std::min(scale, from - start);
    const int last = std::min(static_cast<int>(std::floor(stop)), from - 1);
    const int first = std::min(static_cast<int>(std::ceil(start)), last);
    if (first - start > kLeast) {
      shares.push_back({i, first - 1, static_cast<float>((first - start) / covered)});
    }
    for (int x = first; x < last; ++x) {
      shares.push_back({i, x, static_cast<float>(1.0 / covered)});
    }
    if (stop - last > kLeast) {
      shares.push_back({i, last, static_cast<float>(std::min(std::min(stop - last, 1.0), covered) / covered)});
    }
  }
  return shares;
}

// The mean of n x m pixels, if the sides are divisible.
Image MeanOfBlocks(const Image &image, Size size, int rows, int columns) {
  Image out{size, {}};
  out.bgr.reserve(static_cast<size_t>(size.height) * size.width * kChannels);
  const float share = 1.0f / static_cast<float>(rows * columns);
  for (int y = 0; y < size.height; ++y) {
    for (int x = 0; x < size.width * kChannels; ++x) {
      const int column = x / kChannels * columns, c = x % kChannels;
      int sum = 0;
      for (int dy = 0; dy < rows; ++dy) {
        for (int dx = 0; dx < columns; ++dx) {
          const auto pixel = static_cast<size_t>(y * rows + dy) * image.size.width + column + dx;
          sum += image.bgr[pixel * kChannels + c];
        }
      }
      out.bgr.push_back(rows == 2 && columns == 2 ? static_cast<uint8_t>((sum + 2) >> 2)
                                                  : static_cast<uint8_t>(std::lrint(static_cast<float>(sum) * share)));
    }
  }
  return out;
}

// step: distance between neighbours in bytes.
uint8_t Weighted(const uint8_t *pixel, size_t step, const std::vector<int> &weights) {
  int sum = 1 << (kPillowBits - 1);
  for (int weight : weights) {
    sum += *pixel * weight;
    pixel += step;
  }
  return static_cast<uint8_t>(std::clamp(sum >> kPillowBits, 0, 255));
}

}  // namespace

Image ResizeOpenCv(const Image &image, Size size, double scale) {
  Image out{size, std::vector<uint8_t>(static_cast<size_t>(size.height) * size.width * kChannels)};
  if (Halves(image.size, size) && (scale <= 0 || scale == 0.5)) {
    Halve(image, size, out.bgr.data(), [](int sum) { return static_cast<uint8_t>((sum + 2) >> 2); });
    return out;
  }
  struct FixedTap {
    int first, second, left, right;
  };
  std::vector<FixedTap> taps;
  for (const Tap &tap : Taps(image.size.width, size.width, true, scale)) {
    taps.push_back({tap.first * kChannels, tap.second * kChannels, Fixed(1.0f - tap.weight), Fixed(tap.weight)});
  }
  auto row_of = [&](int y, int *row) {
    const uint8_t *source = image.bgr.data() + static_cast<size_t>(y) * image.size.width * kChannels;
    for (const FixedTap &tap : taps) {
      for (int c = 0; c < kChannels; ++c) {
        *row++ = source[tap.first + c] * tap.left + source[tap.second + c] * tap.right;
      }
    }
  };
  auto combine = [&](int y, float weight, const std::vector<int> &above, const std::vector<int> &below) {
    const int upper = Fixed(1.0f - weight), lower = Fixed(weight);
    uint8_t *target = out.bgr.data() + static_cast<size_t>(y) * size.width * kChannels;
    for (size_t i = 0; i < above.size(); ++i) {
      target[i] = static_cast<uint8_t>((((upper * (above[i] >> 4)) >> 16) + ((lower * (below[i] >> 4)) >> 16) + 2) >> 2);
    }
  };
  ResizeRows<int>(image.size, size, scale, row_of, combine);
  return out;
}

Image ResizeArea(const Image &image, Size size, double scale) {
  const double by_x = scale > 0 ? 1 / scale : 1 / (static_cast<double>(size.width) / image.size.width);
  const double by_y = scale > 0 ? 1 / scale : 1 / (static_cast<double>(size.height) / image.size.height);
  const int columns = static_cast<int>(std::lrint(by_x)), rows = static_cast<int>(std::lrint(by_y));
  if (by_x == columns && by_y == rows && size.width * columns <= image.size.width && size.height * rows <= image.size.height) {
    return MeanOfBlocks(image, size, rows, columns);
  }
  const size_t stride = static_cast<size_t>(size.width) * kChannels;
  const auto across = Shares(image.size.width, size.width, by_x);
  std::vector<float> line(stride), sums(static_cast<size_t>(size.height) * stride);
  for (const Share &down : Shares(image.size.height, size.height, by_y)) {
    const uint8_t *source = image.bgr.data() + static_cast<size_t>(down.source) * image.size.width * kChannels;
    std::fill(line.begin(), line.end(), 0.0f);
    for (const Share &share : across) {
      for (int c = 0; c < kChannels; ++c) {
        line[static_cast<size_t>(share.target * kChannels + c)] += source[share.source * kChannels + c] * share.weight;
      }
    }
    float *target = sums.data() + static_cast<size_t>(down.target) * stride;
    for (size_t i = 0; i < stride; ++i) {
      target[i] += line[i] * down.weight;
    }
  }
  Image out{size, std::vector<uint8_t>(sums.size())};
  std::transform(sums.begin(), sums.end(), out.bgr.begin(),
                 [](float sum) { return static_cast<uint8_t>(std::clamp(std::lrint(sum), 0L, 255L)); });
  return out;
}

FloatImage ResizeFloat(const Image &image, Size size) {
  FloatImage out{size, std::vector<float>(static_cast<size_t>(size.height) * size.width * kChannels)};
  if (image.size == size) {
    out.bgr.assign(image.bgr.begin(), image.bgr.end());
    return out;
  }
  if (Halves(image.size, size)) {
    Halve(image, size, out.bgr.data(), [](int sum) { return static_cast<float>(sum) * 0.25f; });
    return out;
  }
  const auto taps = Taps(image.size.width, size.width, true);
  auto row_of = [&](int y, float *row) {
    const uint8_t *source = image.bgr.data() + static_cast<size_t>(y) * image.size.width * kChannels;
    for (const Tap &tap : taps) {
      for (int c = 0; c < kChannels; ++c) {
        *row++ = source[tap.first * kChannels + c] * (1.0f - tap.weight) + source[tap.second * kChannels + c] * tap.weight;
      }
    }
  };
  auto combine = [&](int y, float weight, const std::vector<float> &above, const std::vector<float> &below) {
    float *target = out.bgr.data() + static_cast<size_t>(y) * size.width * kChannels;
    for (size_t i = 0; i < above.size(); ++i) {
      target[i] = above[i] * (1.0f - weight) + below[i] * weight;
    }
  };
  ResizeRows<float>(image.size, size, 0, row_of, combine);
  return out;
}

Image ResizePillow(const Image &image, Size size) {
  const size_t from_stride = static_cast<size_t>(image.size.width) * kChannels;
  const size_t stride = static_cast<size_t>(size.width) * kChannels;
  Image wide{{image.size.height, size.width}, std::vector<uint8_t>(image.size.height * stride)};
  const auto columns = Windows(image.size.width, size.width);
  for (int y = 0; y < image.size.height; ++y) {
    uint8_t *target = wide.bgr.data() + y * stride;
    for (const Window &window : columns) {
      for (int c = 0; c < kChannels; ++c) {
        *target++ = Weighted(image.bgr.data() + y * from_stride + window.first * kChannels + c, kChannels, window.weights);
      }
    }
  }
  Image out{size, std::vector<uint8_t>(size.height * stride)};
  const auto rows = Windows(image.size.height, size.height);
  for (size_t y = 0; y < rows.size(); ++y) {
    for (size_t x = 0; x < stride; ++x) {
      out.bgr[y * stride + x] = Weighted(wide.bgr.data() + rows[y].first * stride + x, stride, rows[y].weights);
    }
  }
  return out;
}

}  // namespace detect
