#include "two_stage.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

namespace detect {
namespace {

constexpr const char *kDense = "_dense.mindir";
constexpr const char *kHeads = "_heads.mindir";
constexpr const char *kMasks = "_masks.mindir";

Box Clipped(const float *box, const Limits &limits, float offset) {
  const float height = limits[0] - offset, width = limits[1] - offset;
  return {std::min(std::max(box[0], 0.0f), width), std::min(std::max(box[1], 0.0f), height),
          std::min(std::max(box[2], 0.0f), width), std::min(std::max(box[3], 0.0f), height)};
}

// Returns the `most` best of the `indices` by value, best first; ties go to the lower index. All values are finite.
std::vector<size_t> Best(const std::vector<float> &values, std::vector<size_t> indices, size_t most) {
  const auto end = indices.begin() + static_cast<std::ptrdiff_t>(std::min(most, indices.size()));
  std::partial_sort(indices.begin(), end, indices.end(),
                    [&](size_t a, size_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  indices.erase(end, indices.end());
  return indices;
}

// Returns a file beside the dense part; throws InputError if it is missing.
std::string Beside(const std::string &path, const char *ending) {
  const std::string other = path.substr(0, path.size() - std::string(kDense).size()) + ending;
  if (!std::filesystem::is_regular_file(other)) {
    throw InputError("mindir_path: " + other + ": no such file; it belongs to " + path);
  }
  return other;
}

// Returns a flag that older settings files lack.
bool On(const Settings &settings, const char *name) { return settings.Has(name) && settings.Flag(name); }

bool EndsIn(const std::string &text, const std::string &ending) {
  return text.size() > ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

}  // namespace

bool IsDensePart(const std::string &path) {
  if (EndsIn(path, kHeads) || EndsIn(path, kMasks)) {
    throw InputError("mindir_path: " + path + " is a later part of a network: give the file that ends in " + kDense);
  }
  return EndsIn(path, kDense);
}

Proposals::Proposals(const Settings &settings)
    : nms_pre_(static_cast<size_t>(settings.Whole("rpn_nms_pre", 1))),
      nms_post_(static_cast<size_t>(settings.Whole("rpn_nms_post", 1))),
      max_num_(static_cast<size_t>(settings.Whole("rpn_max_num", 1))),
      nms_thr_(static_cast<float>(settings.Number("rpn_nms_thr"))),
      min_size_(static_cast<float>(settings.Number("rpn_min_bbox_min_size"))),
      offset_(static_cast<float>(settings.Number("box_offset"))),
      across_levels_(settings.Flag("rpn_nms_across_levels")),
      cut_first_(On(settings, "nms_across_levels_last")),
      filter_first_(On(settings, "rpn_filter_first")),
      clip_to_input_(settings.Has("rpn_clip") && settings.Text("rpn_clip") == "input") {}

bool Proposals::LargeEnough(const Box &box) const {
  const float width = box[2] - box[0] + offset_, height = box[3] - box[1] + offset_;
  return width > 0 && height > 0 && width >= min_size_ && height >= min_size_;
}

std::vector<Candidate> Proposals::OfLevel(const Output &logits, const Output &boxes, const Limits &limits,
                                          size_t *not_finite) const {
  std::vector<size_t> indices;
  for (size_t i = 0; i < logits.values.size(); ++i) {
    const float *box = boxes.values.data() + 4 * i;
    if (!IsFinite(box, logits.values[i])) {
      ++*not_finite;
    } else if (!filter_first_ || LargeEnough(Clipped(box, limits, offset_))) {
      indices.push_back(i);
    }
  }
  std::vector<Candidate> candidates, kept;
  for (size_t i : Best(logits.values, std::move(indices), nms_pre_)) {
    const Box box = Clipped(boxes.values.data() + 4 * i, limits, offset_);
    if (LargeEnough(box)) {
      candidates.push_back({box, logits.values[i], 1});
    }
  }
  for (size_t i : Suppress(candidates, nms_thr_, nms_post_)) {
    kept.push_back(candidates[i]);
  }
  return kept;
}

std::vector<Box> Proposals::operator()(const std::vector<const Output *> &logits, const std::vector<const Output *> &boxes,
                                       const ImageInfo &info, Size canvas, size_t *not_finite) const {
  Limits limits = {info[0], info[1]};
  if (clip_to_input_) {
    limits = {static_cast<float>(canvas.height - 1), static_cast<float>(canvas.width - 1)};
  }
  std::vector<Candidate> all;
  for (size_t level = 0; level < logits.size(); ++level) {
    const auto some = OfLevel(*logits[level], *boxes[level], limits, not_finite);
    all.insert(all.end(), some.begin(), some.end());
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate &a, const Candidate &b) { return a.score > b.score; });
  std::vector<Box> proposals;
  if (cut_first_) {
    all.resize(std::min(all.size(), max_num_));
  }
  if (across_levels_) {
    for (size_t i : Suppress(all, nms_thr_, max_num_)) {
      proposals.push_back(all[i].box);
    }
    return proposals;
  }
  all.resize(std::min(all.size(), max_num_));
  std::transform(all.begin(), all.end(), std::back_inserter(proposals), [](const Candidate &c) { return c.box; });
  return proposals;
}

BoxNms::BoxNms(const Settings &settings)
    : score_thr_(static_cast<float>(settings.Number("test_score_thr"))),
      iou_thr_(static_cast<float>(settings.Number("test_iou_thr"))),
      min_size_(static_cast<float>(settings.Number("test_min_bbox_size"))),
      offset_(static_cast<float>(settings.Number("box_offset"))),
      nms_pre_(static_cast<size_t>(settings.Whole("test_nms_pre", 1))),
      max_per_img_(static_cast<size_t>(settings.Whole("test_max_per_img", 1))),
      clip_last_(On(settings, "clip_after_nms")),
      scaled_limits_(settings.Has("scale_rule") && settings.Text("scale_rule") == "factor") {}

Detections BoxNms::operator()(const Output &boxes, const Output &scores, size_t count, const ImageInfo &info) const {
  const auto classes = static_cast<size_t>(scores.shape[1]);
  const Limits limits = scaled_limits_ ? Limits{info[4] * info[2], info[5] * info[3]} : Limits{info[0], info[1]};
  Detections found;
  std::vector<size_t> indices;
  for (size_t i = 0; i < count * classes; ++i) {
    if (!IsFinite(boxes.values.data() + 4 * i, scores.values[i])) {
      ++found.not_finite;
    } else if (scores.values[i] > score_thr_) {
      indices.push_back(i);
    }
  }
  std::vector<Candidate> candidates;
  for (size_t i : Best(scores.values, std::move(indices), nms_pre_)) {
    const float *row = boxes.values.data() + 4 * i;
    const Box box = clip_last_ ? Box{row[0], row[1], row[2], row[3]} : Clipped(row, limits, offset_);
    const bool large = box[2] - box[0] + offset_ >= min_size_ && box[3] - box[1] + offset_ >= min_size_;
    if (large || min_size_ <= 0) {
      candidates.push_back({box, scores.values[i], static_cast<int32_t>(i % classes) + 1, i / classes});
    }
  }
  for (size_t i : Suppress(candidates, iou_thr_, max_per_img_)) {
    found.Add(candidates[i]);
    found.boxes.back() = Clipped(candidates[i].box.data(), limits, offset_);
  }
  return found;
}

TwoStage::TwoStage(const Settings &settings)
    : path_(settings.Text("mindir_path")),
      classes_(settings.Whole("num_classes", 2) - 1),
      proposals_(settings),
      roi_align_(settings, settings.Whole("roi_out_size", 1)),
      nms_(settings),
      dense_(path_, settings.Text("device_type"), settings.Whole("device_id", 0), settings.Threads("threads")),
      heads_(Beside(path_, kHeads), settings.Text("device_type"), settings.Whole("device_id", 0), settings.Threads("threads")) {
  if (settings.Has("mask_paste")) {
    mask_align_ = std::make_unique<RoiAlign>(settings, settings.Whole("mask_out_size", 1));
    masks_ = std::make_unique<Model>(Beside(path_, kMasks), settings.Text("device_type"), settings.Whole("device_id", 0),
                                     settings.Threads("threads"));
    max_per_img_ = static_cast<size_t>(settings.Whole("test_max_per_img", 1));
    mask_from_proposal_ = On(settings, "mask_from_proposal");
  }
}

TwoStage::Levels TwoStage::LevelsOf(const std::vector<Output> &outputs, Size canvas) const {
  Levels levels;
  for (const Output &output : outputs) {
    auto &kind = output.shape.size() == 4 ? levels.features : output.shape.size() == 2 ? levels.logits : levels.boxes;
    kind.push_back(&output);
  }
  bool fits = !levels.logits.empty() && levels.boxes.size() == levels.logits.size();
  for (size_t i = 0; i < levels.boxes.size() && fits; ++i) {
    const int64_t anchors = levels.logits[i]->shape[1];
    fits = levels.logits[i]->shape[0] == 1 && levels.boxes[i]->shape == std::vector<int64_t>{1, anchors, 4};
  }
  if (!fits || !roi_align_.Fits(levels.features, canvas)) {
    throw InputError(path_ + ": the network has " + std::to_string(outputs.size()) + " outputs, unlike those of export.py "
                     "--split=True with this configuration");
  }
  return levels;
}

Detections TwoStage::operator()(const NetworkInput &input, Size canvas) {
  const auto outputs = dense_.Run({{{1, 3, canvas.height, canvas.width}, input.image.data()}, {{1, 6}, input.info.data()}});
  const auto [features, logits, boxes] = LevelsOf(outputs, canvas);
  size_t not_finite = 0;
  auto rois = proposals_(logits, boxes, input.info, canvas, &not_finite);
  const size_t count = rois.size();
  const auto roi_features = roi_align_(features, rois, proposals_.max_num());
  rois.resize(proposals_.max_num());
  const auto rows = static_cast<int64_t>(rois.size()), channels = features[0]->shape[1];
  const auto side = static_cast<int64_t>(roi_align_.bins());
  const auto found = heads_.Run({{{rows, channels, side, side}, roi_features.data()}, {{rows, 4}, rois[0].data()}});
  const int64_t classes = found.size() == 2 && found[1].shape.size() == 2 ? found[1].shape[1] : 0;
  if (classes < 1 || found[0].shape != std::vector<int64_t>{rows, classes, 4} || found[1].shape[0] != rows) {
    throw InputError(Beside(path_, kHeads) + ": the network has " + std::to_string(found.size()) +
                     " outputs, expected boxes and scores");
  }
  RequireClasses(Beside(path_, kHeads), classes, classes_);
  Detections detections = nms_(found[0], found[1], count, input.info);
  detections.not_finite += not_finite;
  if (masks_) {
    AddMasks(features, rois, &detections);
  }
  return detections;
}

void TwoStage::AddMasks(const std::vector<const Output *> &features, const std::vector<Box> &proposals, Detections *found) {
  if (found->boxes.empty()) {
    found->mask_side = 1;  // masks are supported, but there are none
    return;
  }
  std::vector<float> labels(found->labels.begin(), found->labels.end());
  labels.resize(max_per_img_, 1);
  std::vector<Box> boxes = found->boxes;
  for (size_t i = 0; mask_from_proposal_ && i < boxes.size(); ++i) {
    boxes[i] = proposals[found->sources[i]];
  }
  const auto pooled = (*mask_align_)(features, boxes, max_per_img_);
  const auto rows = static_cast<int64_t>(max_per_img_), side = static_cast<int64_t>(mask_align_->bins());
  auto outputs = masks_->Run({{{rows, features[0]->shape[1], side, side}, pooled.data()}, {{rows}, labels.data()}});
  const int64_t cells = outputs.size() == 1 && outputs[0].shape.size() == 3 ? outputs[0].shape[1] : 0;
  if (cells < 1 || outputs[0].shape != std::vector<int64_t>{rows, cells, cells}) {
    throw InputError(Beside(path_, kMasks) + ": the network has " + std::to_string(outputs.size()) + " outputs, expected masks");
  }
  found->mask_side = static_cast<int>(cells);
  found->masks = std::move(outputs[0].values);
  found->masks.resize(found->boxes.size() * static_cast<size_t>(found->mask_side * found->mask_side));
}

}  // namespace detect
