#include "results.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace detect {
namespace {

std::string Quoted(const std::string &text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
    }
    if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      quoted += code;
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

// Nine digits tell float32 apart.
template <typename Row>
std::string List(const Row &values) {
  std::string text;
  for (float value : values) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%s%.9g", text.empty() ? "" : ", ", static_cast<double>(value));
    text += digits;
  }
  return "[" + text + "]";
}

// Of detection `i`, in the picture as it was read.
std::string RleOf(const Outcome &outcome, size_t i, const MaskSettings &masks) {
  const Box &box = outcome.found.boxes[i];
  std::array<double, 4> corners{};
  for (size_t c = 0; c < 4; ++c) {
    const double scale = outcome.info[c % 2 == 0 ? 3 : 2], side = outcome.info[c % 2 == 0 ? 5 : 4];
    corners[c] = std::clamp(static_cast<double>(box[c]) / scale, 0.0, side);
  }
  const int side = outcome.found.mask_side;
  const Size size = {static_cast<int>(outcome.info[4]), static_cast<int>(outcome.info[5])};
  const float *mask = outcome.found.masks.data() + i * static_cast<size_t>(side * side);
  return PasteRle(mask, side, corners, size, masks.threshold, masks.rule);
}

}  // namespace

std::string ResultLine(const Outcome &outcome, const MaskSettings &masks) {
  std::string line = "{\"image_id\": " + std::to_string(outcome.file.id) + ", \"file_name\": " + Quoted(outcome.file.name);
  if (!outcome.problem.empty()) {
    return line + ", \"problem\": " + Quoted(outcome.problem) + "}";
  }
  std::string boxes, labels, rles;
  for (size_t i = 0; i < outcome.found.boxes.size(); ++i) {
    boxes += (boxes.empty() ? "" : ", ") + List(outcome.found.boxes[i]);
    labels += (labels.empty() ? "" : ", ") + std::to_string(outcome.found.labels[i]);
    if (outcome.found.mask_side > 0) {
      rles += (rles.empty() ? "" : ", ") + Quoted(RleOf(outcome, i, masks));
    }
  }
  return line + ", \"image_info\": " + List(outcome.info) + ", \"boxes\": [" + boxes + "], \"scores\": " +
         List(outcome.found.scores) + ", \"labels\": [" + labels + "]" +
         (outcome.found.mask_side > 0 ? ", \"masks\": [" + rles + "]" : "") + "}";
}

ResultsWriter::ResultsWriter(const Settings &settings)
    : path_(settings.Text("output_path")), stream_(path_, std::ios::trunc) {
  if (settings.Has("mask_paste")) {
    const std::string &paste = settings.Text("mask_paste");
    masks_ = {static_cast<float>(settings.Number("mask_thr_binary")),
              paste == "truncated" ? PasteRule::kTruncated : paste == "rounded" ? PasteRule::kRounded : PasteRule::kGrid};
  }
  if (!stream_) {
    throw InputError("output_path: " + path_ + " cannot be written: " + std::strerror(errno));
  }
}

void ResultsWriter::Add(const Outcome &outcome) {
  stream_ << ResultLine(outcome, masks_) << '\n' << std::flush;
  if (!stream_) {
    throw InputError("output_path: " + path_ + " cannot be written: " + std::strerror(errno));
  }
}

}  // namespace detect
