// The results file: one JSON object per line and image. It is written to a temporary name and renamed when complete.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "files.h"
#include "masks.h"
#include "nms.h"
#include "preprocess.h"

namespace detect {

// The result for an image; `problem` is not empty if it could not be read.
struct Outcome {
  ImageFile file;
  std::string problem;
  ImageInfo info{};
  Detections found;
  double seconds = 0;  // time of network and NMS
};

// How masks are pasted into the image.
struct MaskSettings {
  float threshold = 0;
  PasteRule rule = PasteRule::kGrid;
};

class ResultsWriter {
 public:
  explicit ResultsWriter(const Settings &settings);
  ~ResultsWriter();  // removes an unfinished file

  // Throws InputError if the line cannot be written.
  void Add(const Outcome &outcome);

  // Renames the file to its final name; throws InputError if that fails.
  void Finish();

 private:
  [[noreturn]] void Fail(const std::string &why) const;

  std::string path_;
  std::filesystem::path partial_;  // equal to path_ for devices and pipes, which are written directly
  std::ofstream stream_;
  MaskSettings masks_;
};

// {"image_id": ..., "file_name": ..., then "problem", or "image_info", "boxes", "scores", "labels" and, if any, "masks"}
std::string ResultLine(const Outcome &outcome, const MaskSettings &masks);

}  // namespace detect
