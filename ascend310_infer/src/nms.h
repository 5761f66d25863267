// Greedy non-maximum suppression, for networks exported without it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "settings.h"

namespace detect {

using Box = std::array<float, 4>;  // x1, y1, x2, y2 in pixels of the network's input

// A box that competes with others of its label.
struct Candidate {
  Box box;
  float score;
  int32_t label;      // from 1
  size_t source = 0;  // for two-stage models: index of the proposal
};

// The detections in one image, best first.
struct Detections {
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<int32_t> labels;  // from 1
  std::vector<size_t> sources;  // see Candidate

  // For networks with masks: mask_side x mask_side probabilities per detection, in cells of its box.
  int mask_side = 0;
  std::vector<float> masks;

  size_t not_finite = 0;  // boxes or scores left out because they are not finite

  void Add(const Candidate &candidate);
};

// Returns whether a box and its score are finite. Overflowed boxes would suppress valid ones.
bool IsFinite(const float *box, float score);

// Throws InputError unless the network at `path` has as many classes, without background, as the configuration.
void RequireClasses(const std::string &path, int64_t network, int64_t configuration);

// Returns the indices of candidates, given best first, that no better one of their label overlaps with IoU > threshold; at most
// `most`.
std::vector<size_t> Suppress(const std::vector<Candidate> &candidates, float threshold, size_t most);

// Post-processing of RefineDet, as in refinedet/src/host_nms.py.
class ClassNms {
 public:
  explicit ClassNms(const Settings &settings);

  // boxes: A x 4; scores: A x K, foreground classes. Keeps the best `per_class` above score_thr per class, the best `total` of all,
  // and after NMS within each class the best max_per_img.
  Detections operator()(const std::vector<float> &boxes, const std::vector<float> &scores) const;

 private:
  std::vector<Candidate> Candidates(const std::vector<float> &boxes, const std::vector<float> &scores, size_t *not_finite) const;

  float score_thr_, iou_thr_;
  size_t per_class_, total_, max_per_img_;
};

}  // namespace detect
