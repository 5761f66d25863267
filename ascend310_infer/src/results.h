// The file of results: a JSON object a line, one for each picture, appended as they come.
#pragma once

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

  // InputError where the line cannot be written.
  void Add(const Outcome &outcome);

 private:
  std::string path_;
  std::ofstream stream_;
  MaskSettings masks_;
};

// {"image_id": ..., "file_name": ..., then "problem", or "image_info", "boxes", "scores", "labels" and maybe "masks"}
std::string ResultLine(const Outcome &outcome, const MaskSettings &masks);

}  // namespace detect
