// The file of results: a JSON object a line, one for each picture, appended as they come.
#pragma once

#include <fstream>
#include <string>

#include "files.h"
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

class ResultsWriter {
 public:
  explicit ResultsWriter(const std::string &path);

  // InputError where the line cannot be written.
  void Add(const Outcome &outcome);

 private:
  std::string path_;
  std::ofstream stream_;
};

// {"image_id": ..., "file_name": ..., then "problem", or "image_info", "boxes", "scores" and "labels"}
std::string ResultLine(const Outcome &outcome);

}  // namespace detect
