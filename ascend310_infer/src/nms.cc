#include "nms.h"

#include <algorithm>
#include <cmath>

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
  sources.push_back(candidate.source);
}

bool IsFinite(const float *box, float score) {
  return std::isfinite(score) && std::all_of(box, box + 4, [](float side) { return std::isfinite(side); });
}

void RequireClasses(const std::string &path, int64_t network, int64_t configuration) {
  if (network != configuration) {
    throw InputError(path + ": the network has " + std::to_string(network) + " classes, the configuration " +
                     std::to_string(configuration) + ": pass the --config_path it was exported with");
  }
}

ClassNms::ClassNms(const Settings &settings)
    : score_thr_(static_cast<float>(settings.Number("test_score_thr"))),
      iou_thr_(static_cast<float>(settings.Number("test_iou_thr"))),
      per_class_(static_cast<size_t>(settings.Whole("test_nms_pre", 1))),
      total_(static_cast<size_t>(settings.Whole("test_nms_total", 1))),
      max_per_img_(static_cast<size_t>(settings.Whole("test_max_per_img", 1))) {}

std::vector<Candidate> ClassNms::Candidates(const std::vector<float> &boxes, const std::vector<float> &scores,
                                            size_t *not_finite) const {
  const size_t anchors = boxes.size() / 4, classes = scores.size() / std::max<size_t>(anchors, 1);
  std::vector<std::vector<size_t>> of_class(classes);  // anchors
  for (size_t a = 0; a < anchors; ++a) {
    for (size_t k = 0; k < classes; ++k) {
      const float score = scores[a * classes + k];
      if (!IsFinite(boxes.data() + 4 * a, score)) {
        ++*not_finite;
      } else if (score > score_thr_) {
        of_class[k].push_back(a);
      }
    }
  }
  std::vector<Candidate> all;
  for (size_t k = 0; k < classes; ++k) {
    auto &chosen = of_class[k];
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
  Detections found;
  const auto candidates = Candidates(boxes, scores, &found.not_finite);
  for (size_t i : Suppress(candidates, iou_thr_, max_per_img_)) {
    found.Add(candidates[i]);
  }
  return found;
}

}  // namespace detect
