// Single operators on raw numbers from stdin, for the tests.
//   ops pool CHANNELS HEIGHT WIDTH BINS SAMPLES ALIGNED SCALE   features (float32), then RoIs (4 float32 each) -> pooled, float32
//   ops nms THRESHOLD   boxes, best first: 4 coordinates and a label (float32) each -> the indices that stand, lines
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>

#include "../src/nms.h"
#include "../src/roi_align.h"

namespace {

using namespace detect;

std::vector<float> ReadAll() {
  const std::string bytes((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

void Pool(char **words) {
  const std::vector<std::string> known = {"roi_sample_num", "threads", "roi_aligned", "roi_strides", "roi_borders",
                                          "roi_unit", "roi_inside", "roi_offset"};
  const std::vector<std::string> flags = {"--threads=2", "--roi_borders=", "--roi_unit=56", "--roi_inside=0", "--roi_offset=0",
                                          std::string("--roi_sample_num=") + words[4], std::string("--roi_aligned=") + words[5],
                                          std::string("--roi_strides=") + words[6]};
  const RoiAlign align(Settings(flags, known), std::atoi(words[3]));
  Output feature{{1, std::atoi(words[0]), std::atoi(words[1]), std::atoi(words[2])}, ReadAll()};
  const auto size = static_cast<size_t>(feature.shape[1] * feature.shape[2] * feature.shape[3]);
  std::vector<Box> rois;
  for (size_t i = size; i + 4 <= feature.values.size(); i += 4) {
    const float *row = feature.values.data() + i;
    rois.push_back({row[0], row[1], row[2], row[3]});
  }
  feature.values.resize(size);
  const auto pooled = align({&feature}, rois);
  std::fwrite(pooled.data(), sizeof(float), pooled.size(), stdout);
}

void Nms(char **words) {
  const auto values = ReadAll();
  std::vector<Candidate> candidates;
  for (size_t i = 0; i + 5 <= values.size(); i += 5) {
    candidates.push_back({{values[i], values[i + 1], values[i + 2], values[i + 3]}, 0, static_cast<int32_t>(values[i + 4])});
  }
  for (size_t i : Suppress(candidates, static_cast<float>(std::atof(words[0])), candidates.size())) {
    std::printf("%zu\n", i);
  }
}

}  // namespace

int main(int count, char **words) {
  if (count == 9 && std::strcmp(words[1], "pool") == 0) {
    Pool(words + 2);
    return 0;
  }
  if (count == 3 && std::strcmp(words[1], "nms") == 0) {
    Nms(words + 2);
    return 0;
  }
  return 2;
}
