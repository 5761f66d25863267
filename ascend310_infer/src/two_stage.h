// Faster R-CNN and Mask R-CNN in parts: what a network exported with --split=True leaves to the program that runs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "nms.h"
#include "preprocess.h"
#include "roi_align.h"

namespace detect {

// Height and width that boxes are cut to.
using Limits = std::array<float, 2>;

// Candidates of the levels -> proposals, as src/FasterRcnn/proposal_generator.py.
class Proposals {
 public:
  explicit Proposals(const Settings &settings);

  // logits: (1, A_l) and boxes: (1, A_l, 4) per level -> the best, cut to the picture; at most max_num. Counts those that are
  // left out, as they are no numbers. canvas: the size of the padded input.
  std::vector<Box> operator()(const std::vector<const Output *> &logits, const std::vector<const Output *> &boxes,
                              const ImageInfo &info, Size canvas, size_t *not_finite) const;
  size_t max_num() const { return max_num_; }

 private:
  std::vector<Candidate> OfLevel(const Output &logits, const Output &boxes, const Limits &limits, size_t *not_finite) const;
  bool LargeEnough(const Box &box) const;

  size_t nms_pre_, nms_post_, max_num_;
  float nms_thr_, min_size_, offset_;
  bool across_levels_;  // one more NMS over the boxes of all levels
  bool cut_first_;      // before it the cut to the best
  bool filter_first_;   // drops what is too small before the best of a level are chosen
  bool clip_to_input_;  // clips to the last pixel of the padded input
};

// Boxes and scores of each proposal and class -> detections, as Detector of src/FasterRcnn/rcnn.py.
class BoxNms {
 public:
  explicit BoxNms(const Settings &settings);

  // boxes: P x K x 4, scores: P x K, of which the first `count` proposals are meant.
  Detections operator()(const Output &boxes, const Output &scores, size_t count, const ImageInfo &info) const;

 private:
  float score_thr_, iou_thr_, min_size_, offset_;
  size_t nms_pre_, max_per_img_;
  bool clip_last_, scaled_limits_;  // clip behind the NMS; to the original size times the scale
};

// Runs the part before the proposals, then the heads on what RoIAlign gives them.
class TwoStage {
 public:
  // mindir_path: NAME_dense.mindir, beside which NAME_heads.mindir lies, and of Mask R-CNN NAME_masks.mindir.
  explicit TwoStage(const Settings &settings);

  Detections operator()(const NetworkInput &input, Size canvas);

 private:
  // Outputs of the dense part; features are of the levels that are pooled from.
  struct Levels {
    std::vector<const Output *> features, logits, boxes;
  };

  Levels LevelsOf(const std::vector<Output> &outputs, Size canvas) const;
  // proposals: that the detections came from.
  void AddMasks(const std::vector<const Output *> &features, const std::vector<Box> &proposals, Detections *found);

  std::string path_;
  int classes_;  // without the background
  Proposals proposals_;
  RoiAlign roi_align_;
  BoxNms nms_;
  Model dense_, heads_;
  std::unique_ptr<RoiAlign> mask_align_;  // of Mask R-CNN, as what follows
  std::unique_ptr<Model> masks_;
  size_t max_per_img_ = 0;
  bool mask_from_proposal_ = false;  // pools the mask of a detection from the proposal that it came from
};

// Whether this is a file that TwoStage takes; InputError where it is the heads' part.
bool IsDensePart(const std::string &path);

}  // namespace detect
