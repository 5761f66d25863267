// Greedy non-maximum suppression, for networks that were exported without it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "settings.h"

namespace detect {

using Box = std::array<float, 4>;  // x1, y1, x2, y2 in pixels of the network's input

// A box that competes with those of its label.
struct Candidate {
  Box box;
  float score;
  int32_t label;      // from 1 on
  size_t source = 0;  // of two stages: the number of the proposal that it came from
};

// What was found in one picture, best first.
struct Detections {
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<int32_t> labels;  // from 1 on
  std::vector<size_t> sources;  // as of Candidate

  // Of networks with masks: mask_side x mask_side probabilities of each detection, in cells of its box.
  int mask_side = 0;
  std::vector<float> masks;

  size_t not_finite = 0;  // boxes or scores that were left out, as no numbers

  void Add(const Candidate &candidate);
};

// Whether the box that begins at `box` and its score are numbers: what overflowed would suppress what did not.
bool IsFinite(const float *box, float score);

// InputError unless the network that lies in `path` tells as many classes, without the background, as the configuration.
void RequireClasses(const std::string &path, int64_t network, int64_t configuration);

// Of candidates, best first, the indices of those that no better one of their label overlaps by IoU > threshold; `most` at most.
std::vector<size_t> Suppress(const std::vector<Candidate> &candidates, float threshold, size_t most);

// The last step of RefineDet, as refinedet/src/host_nms.py does it.
class ClassNms {
 public:
  explicit ClassNms(const Settings &settings);

  // boxes: A x 4; scores: A x K, of the foreground classes. Of each class the best `per_class` above score_thr, of these
  // the best `total`, of what NMS leaves within a class the best max_per_img.
  Detections operator()(const std::vector<float> &boxes, const std::vector<float> &scores) const;

 private:
  std::vector<Candidate> Candidates(const std::vector<float> &boxes, const std::vector<float> &scores, size_t *not_finite) const;

  float score_thr_, iou_thr_;
  size_t per_class_, total_, max_per_img_;
};

}  // namespace detect
