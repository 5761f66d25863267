#include "nms.h"

#include <algorithm>

namespace detect {
namespace {

float Area(const Box &box) { return std::max(box[2] - box[0], 0.0f) * std::max(box[3] - box[1], 0.0f); }

float Shared(const Box &a, const Box &b) {
  const float width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0f);
  return width * std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0f);
}

}  // namespace

std::vector<size_t> Suppress(const std::vector<Candidate> &candidates, float threshold, size_t most) {
  std::vector<size_t> kept;
  for (size_t i = 0; i < candidates.size() && kept.size() < most; ++i) {
    const Box &box = candidates[i].box;
    const bool stands = std::all_of(kept.begin(), kept.end(), [&](size_t k) {
      const Candidate &better = candidates[k];
      const float shared = Shared(box, better.box);
      return better.label != candidates[i].label || shared <= threshold * (Area(box) + Area(better.box) - shared);
    });
    if (stands) {
      kept.push_back(i);
    }
  }
  return kept;
}

void Detections::Add(const Candidate &candidate) {
  boxes.push_back(candidate.box);
  scores.push_back(candidate.score);
  labels.push_back(candidate.label);
}

void Detections::Cut(size_t count) {
  if (count < boxes.size()) {
    boxes.resize(count);
    scores.resize(count);
    labels.resize(count);
    masks.resize(count * static_cast<size_t>(mask_side * mask_side));
  }
}

ClassNms::ClassNms(const Settings &settings)
    : score_thr_(static_cast<float>(settings.Number("test_score_thr"))),
      iou_thr_(static_cast<float>(settings.Number("test_iou_thr"))),
      per_class_(static_cast<size_t>(settings.Whole("test_nms_pre", 1))),
      total_(static_cast<size_t>(settings.Whole("test_nms_total", 1))),
      max_per_img_(static_cast<size_t>(settings.Whole("test_max_per_img", 1))) {}

std::vector<Candidate> ClassNms::Candidates(const std::vector<float> &boxes, const std::vector<float> &scores) const {
  const size_t anchors = boxes.size() / 4, classes = scores.size() / std::max<size_t>(anchors, 1);
  std::vector<Candidate> all;
  std::vector<size_t> chosen;
  for (size_t k = 0; k < classes; ++k) {
    chosen.clear();
    for (size_t a = 0; a < anchors; ++a) {
      if (scores[a * classes + k] > score_thr_) {
        chosen.push_back(a);
      }
    }
    const auto end = chosen.begin() + static_cast<std::ptrdiff_t>(std::min(per_class_, chosen.size()));
    std::partial_sort(chosen.begin(), end, chosen.end(), [&](size_t a, size_t b) {
      const float first = scores[a * classes + k], second = scores[b * classes + k];
      return first != second ? first > second : a < b;
    });
    for (auto a = chosen.begin(); a != end; ++a) {
      const float *row = boxes.data() + 4 * *a;
      all.push_back({{row[0], row[1], row[2], row[3]}, scores[*a * classes + k], static_cast<int32_t>(k) + 1});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate &a, const Candidate &b) { return a.score > b.score; });
  all.resize(std::min(total_, all.size()));
  return all;
}

Detections ClassNms::operator()(const std::vector<float> &boxes, const std::vector<float> &scores) const {
  const auto candidates = Candidates(boxes, scores);
  Detections found;
  for (size_t i : Suppress(candidates, iou_thr_, max_per_img_)) {
    found.Add(candidates[i]);
  }
  return found;
}

}  // namespace detect
