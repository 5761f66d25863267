// Faster R-CNN and Mask R-CNN in parts: the steps that a network exported with --split=True leaves to this program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "nms.h"
#include "preprocess.h"
#include "roi_align.h"

namespace detect {

// Height and width to which boxes are clipped.
using Limits = std::array<float, 2>;

// Selects proposals from the candidates of all levels, as src/FasterRcnn/proposal_generator.py.
class Proposals {
 public:
  explicit Proposals(const Settings &settings);

  // logits: (1, A_l) and boxes: (1, A_l, 4) per level -> the best boxes, clipped, at most max_num. Adds the number of non-finite
  // candidates, which are left out, to *not_finite. canvas: size of the padded input.
  std::vector<Box> operator()(const std::vector<const Output *> &logits, const std::vector<const Output *> &boxes,
                              const ImageInfo &info, Size canvas, size_t *not_finite) const;
  size_t max_num() const { return max_num_; }

 private:
  std::vector<Candidate> OfLevel(const Output &logits, const Output &boxes, const Limits &limits, size_t *not_finite) const;
  bool LargeEnough(const Box &box) const;

  size_t nms_pre_, nms_post_, max_num_;
  float nms_thr_, min_size_, offset_;
  bool across_levels_;  // apply one more NMS to the boxes of all levels
  bool cut_first_;      // select the best max_num before that NMS
  bool filter_first_;   // drop small boxes before selecting the best of a level
  bool clip_to_input_;  // clip to the last pixel of the padded input
};

// Selects detections from boxes and scores per proposal and class, as Detector in src/FasterRcnn/rcnn.py.
class BoxNms {
 public:
  explicit BoxNms(const Settings &settings);

  // boxes: P x K x 4; scores: P x K. Only the first `count` proposals are valid.
  Detections operator()(const Output &boxes, const Output &scores, size_t count, const ImageInfo &info) const;

 private:
  float score_thr_, iou_thr_, min_size_, offset_;
  size_t nms_pre_, max_per_img_;
  bool clip_last_, scaled_limits_;  // clip after NMS; clip to the original size times the scale
};

// Runs the part before the proposals, then the heads on the pooled features.
class TwoStage {
 public:
  // mindir_path: NAME_dense.mindir; NAME_heads.mindir and, for Mask R-CNN, NAME_masks.mindir must be beside it.
  explicit TwoStage(const Settings &settings);

  Detections operator()(const NetworkInput &input, Size canvas);

 private:
  // Outputs of the dense part; `features` are the levels that RoIs are pooled from.
  struct Levels {
    std::vector<const Output *> features, logits, boxes;
  };

  Levels LevelsOf(const std::vector<Output> &outputs, Size canvas) const;
  // proposals: of the image, in the order that Detections::sources refers to.
  void AddMasks(const std::vector<const Output *> &features, const std::vector<Box> &proposals, Detections *found);

  std::string path_;
  int classes_;  // without the background
  Proposals proposals_;
  RoiAlign roi_align_;
  BoxNms nms_;
  Model dense_, heads_;
  std::unique_ptr<RoiAlign> mask_align_;  // for Mask R-CNN, as are the following
  std::unique_ptr<Model> masks_;
  size_t max_per_img_ = 0;
  bool mask_from_proposal_ = false;  // pool the mask of a detection from its proposal
};

// Returns whether the file is the dense part of a network; throws InputError for a later part.
bool IsDensePart(const std::string &path);

}  // namespace detect
