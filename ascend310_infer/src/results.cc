#include "results.h"

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

bool IsFinite(const Box &box, float score) {
  bool finite = std::isfinite(score);
  for (float side : box) {
    finite = finite && std::isfinite(side);
  }
  return finite;
}

}  // namespace

std::string ResultLine(const Outcome &outcome) {
  std::string line = "{\"image_id\": " + std::to_string(outcome.file.id) + ", \"file_name\": " + Quoted(outcome.file.name);
  if (!outcome.problem.empty()) {
    return line + ", \"problem\": " + Quoted(outcome.problem) + "}";
  }
  std::string boxes, labels;
  std::vector<float> scores;
  for (size_t i = 0; i < outcome.found.boxes.size(); ++i) {
    if (IsFinite(outcome.found.boxes[i], outcome.found.scores[i])) {   // JSON has no others
      boxes += (boxes.empty() ? "" : ", ") + List(outcome.found.boxes[i]);
      labels += (labels.empty() ? "" : ", ") + std::to_string(outcome.found.labels[i]);
      scores.push_back(outcome.found.scores[i]);
    }
  }
  return line + ", \"image_info\": " + List(outcome.info) + ", \"boxes\": [" + boxes + "], \"scores\": " + List(scores) +
         ", \"labels\": [" + labels + "]}";
}

ResultsWriter::ResultsWriter(const std::string &path) : path_(path), stream_(path, std::ios::trunc) {
  if (!stream_) {
    throw InputError("output_path: " + path + " cannot be written: " + std::strerror(errno));
  }
}

void ResultsWriter::Add(const Outcome &outcome) {
  stream_ << ResultLine(outcome) << '\n' << std::flush;
  if (!stream_) {
    throw InputError("output_path: " + path_ + " cannot be written: " + std::strerror(errno));
  }
}

}  // namespace detect
