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

ClassNms::ClassNms(const Settings &settings)
    : score_thr_(static_cast<float>(settings.Number("test_score_thr"))),
      iou_thr_(static_cast<float>(settings.Number("test_iou_thr"))),
      per_class_(static_cast<size_t>(settings.Whole("test_nms_pre", 1))),
      total_(static_cast<size_t>(settings.Whole("test_nms_total", 1))),
      max_per_img_(static_cast<size_t>(settings.Whole("test_max_per_img", 1))) {}

std::vector<ClassNms::Candidate> ClassNms::Candidates(const std::vector<float> &scores, size_t anchors,
                                                      size_t classes) const {
  std::vector<Candidate> all, chosen;
  for (size_t k = 0; k < classes; ++k) {
    chosen.clear();
    for (size_t a = 0; a < anchors; ++a) {
      const float score = scores[a * classes + k];
      if (score > score_thr_) {
        chosen.push_back({static_cast<int32_t>(a), static_cast<int32_t>(k), score});
      }
    }
    const size_t count = std::min(per_class_, chosen.size());
    std::partial_sort(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(count), chosen.end(),
                      [](const Candidate &a, const Candidate &b) {
                        return a.score != b.score ? a.score > b.score : a.anchor < b.anchor;
                      });
    all.insert(all.end(), chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(count));
  }
  std::stable_sort(all.begin(), all.end(), [](const Candidate &a, const Candidate &b) { return a.score > b.score; });
  all.resize(std::min(total_, all.size()));
  return all;
}

Detections ClassNms::operator()(const std::vector<float> &boxes, const std::vector<float> &scores) const {
  const size_t anchors = boxes.size() / 4, classes = scores.size() / std::max<size_t>(anchors, 1);
  Detections found;
  for (const Candidate &candidate : Candidates(scores, anchors, classes)) {
    if (found.boxes.size() == max_per_img_) {
      break;
    }
    const float *row = boxes.data() + 4 * static_cast<size_t>(candidate.anchor);
    const Box box = {row[0], row[1], row[2], row[3]};
    bool stands = true;
    for (size_t i = 0; i < found.boxes.size() && stands; ++i) {
      const float shared = Shared(box, found.boxes[i]);
      const float joined = Area(box) + Area(found.boxes[i]) - shared;
      stands = found.labels[i] != candidate.label + 1 || shared <= iou_thr_ * joined;
    }
    if (stands) {
      found.boxes.push_back(box);
      found.scores.push_back(candidate.score);
      found.labels.push_back(candidate.label + 1);
    }
  }
  return found;
}

}  // namespace detect
