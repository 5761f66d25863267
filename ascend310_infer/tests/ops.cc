// Runs single operators on raw numbers from stdin, for the tests.
//   ops pool CHANNELS HEIGHT WIDTH BINS SAMPLES ALIGNED SCALE   features (float32), then RoIs (4 float32 each) -> pooled, float32
//   ops class SETTINGS_PATH ANCHORS   boxes (4 each), then scores (K each) -> detections of ClassNms
//   ops box SETTINGS_PATH PROPOSALS   boxes (4 K each), then scores (K each), in an image of 100 x 100 -> detections of BoxNms
//     output: a line with the number of non-finite candidates, then label, score and x1 of each detection
//   ops nms THRESHOLD   boxes, best first: 4 coordinates and a label (float32) each -> indices of the kept boxes, one per line
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>

#include "../src/nms.h"
#include "../src/roi_align.h"
#include "../src/two_stage.h"

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
  const auto pooled = align({&feature}, rois, rois.size());
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

void Print(const Detections &found) {
  std::printf("%zu\n", found.not_finite);
  for (size_t i = 0; i < found.boxes.size(); ++i) {
    std::printf("%d %.9g %.9g\n", found.labels[i], static_cast<double>(found.scores[i]), static_cast<double>(found.boxes[i][0]));
  }
}

void Detect(char **words, bool per_proposal) {
  const Settings settings({"--settings_path", words[0]}, {"settings_path"});
  const auto values = ReadAll();
  const auto rows = std::atoi(words[1]), classes = settings.Whole("num_classes", 2) - 1;
  const auto middle = values.begin() + 4 * rows * (per_proposal ? classes : 1);
  const std::vector<float> boxes(values.begin(), middle), scores(middle, values.end());
  if (per_proposal) {
    Print(BoxNms(settings)({{rows, classes, 4}, boxes}, {{rows, classes}, scores}, static_cast<size_t>(rows), {100, 100}));
  } else {
    Print(ClassNms(settings)(boxes, scores));
  }
}

}  // namespace

int main(int count, char **words) {
  if (count == 9 && std::strcmp(words[1], "pool") == 0) {
    Pool(words + 2);
    return 0;
  }
  if (count == 4 && (std::strcmp(words[1], "class") == 0 || std::strcmp(words[1], "box") == 0)) {
    Detect(words + 2, words[1][0] == 'b');
    return 0;
  }
  if (count == 3 && std::strcmp(words[1], "nms") == 0) {
    Nms(words + 2);
    return 0;
  }
  return 2;
}
