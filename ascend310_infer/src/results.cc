#include "results.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace detect {
namespace fs = std::filesystem;
namespace {

// Part of the temporary name, before the process id: processes on other machines may share the folder.
std::string Host() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

std::string PartialPrefix(const fs::path &path) { return "." + path.stem().string().substr(0, 50) + "." + Host() + "."; }

std::string PartialSuffix(const fs::path &path) { return ".part" + path.extension().string(); }

// Removes temporary files of this name from dead processes of this machine.
void RemoveLeftovers(const fs::path &path) {
  const std::string prefix = PartialPrefix(path), suffix = PartialSuffix(path);
  std::error_code error;
  for (const auto &entry : fs::directory_iterator(path.parent_path().empty() ? "." : path.parent_path(), error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() <= prefix.size() + suffix.size() || name.compare(0, prefix.size(), prefix) != 0 ||
        name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) {
      continue;
    }
    const std::string digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    const bool number = std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number && digits.size() < 10 && kill(static_cast<pid_t>(std::stol(digits)), 0) != 0 && errno == ESRCH) {
      fs::remove(entry.path(), error);
    }
  }
}

// Returns the temporary path to write to. A symbolic link is preserved.
fs::path PartialPath(const fs::path &path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    return path;  // opening it reports the error
  }
  if (path.parent_path() == "/dev" || (fs::exists(path, error) && !fs::is_regular_file(path, error))) {
    return path;
  }
  fs::path target = fs::weakly_canonical(path, error);
  target = error ? path : target;
  RemoveLeftovers(target);
  return target.parent_path() / (PartialPrefix(target) + std::to_string(getpid()) + PartialSuffix(target));
}

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

// Nine digits distinguish all float32 values.
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

// Returns the mask of detection `i` in the original image.
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
    : path_(settings.Text("output_path")), partial_(PartialPath(path_)), stream_(partial_, std::ios::trunc) {
  if (settings.Has("mask_paste")) {
    const std::string &paste = settings.Text("mask_paste");
    masks_ = {static_cast<float>(settings.Number("mask_thr_binary")),
              paste == "truncated" ? PasteRule::kTruncated : paste == "rounded" ? PasteRule::kRounded : PasteRule::kGrid};
  }
  if (!stream_) {
    Fail(std::strerror(errno));
  }
}

ResultsWriter::~ResultsWriter() {
  std::error_code error;
  if (partial_ != path_) {
    fs::remove(partial_, error);
  }
}

void ResultsWriter::Add(const Outcome &outcome) {
  stream_ << ResultLine(outcome, masks_) << '\n' << std::flush;
  if (!stream_) {
    Fail(std::strerror(errno));
  }
}

void ResultsWriter::Finish() {
  stream_.close();
  if (!stream_) {
    Fail(std::strerror(errno));
  }
  if (partial_ == path_) {
    return;
  }
  const int file = open(partial_.c_str(), O_RDONLY | O_CLOEXEC);  // sync first, or a power cut may leave an empty file
  if (file >= 0) {
    fsync(file);
    close(file);
  }
  std::error_code error;
  const fs::path target = fs::weakly_canonical(path_, error);
  fs::rename(partial_, error ? fs::path(path_) : target, error);
  if (error) {
    Fail(error.message());
  }
}

void ResultsWriter::Fail(const std::string &why) const {
  throw InputError("output_path: " + path_ + " cannot be written: " + why);
}

}  // namespace detect
