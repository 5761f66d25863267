// The file of results: a JSON object a line, one for each picture. It is written beside its place as they come, and renamed
// when it is whole.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "files.h"
#include "masks.h"
#include "nms.h"
#include "preprocess.h"

namespace detect {

// What became of a picture; `problem` is not empty where it could not be read.
struct Outcome {
  PictureFile file;
  std::string problem;
  ImageInfo info{};
  Detections found;
  double seconds = 0;  // that network and NMS took
};

// How masks are pasted into the picture.
struct MaskSettings {
  float threshold = 0;
  PasteRule rule = PasteRule::kGrid;
};

class ResultsWriter {
 public:
  explicit ResultsWriter(const Settings &settings);
  ~ResultsWriter();  // removes what has not been finished

  // InputError where the line cannot be written.
  void Add(const Outcome &outcome);

  // Puts the file in its place; InputError where that is not possible.
  void Finish();

 private:
  [[noreturn]] void Fail(const std::string &why) const;

  std::string path_;
  std::filesystem::path partial_;  // a device or a pipe is written directly: then it is path_
  std::ofstream stream_;
  MaskSettings masks_;
};

// {"image_id": ..., "file_name": ..., then "problem", or "image_info", "boxes", "scores", "labels" and maybe "masks"}
std::string ResultLine(const Outcome &outcome, const MaskSettings &masks);

}  // namespace detect
