// Progress during the run, and a summary at the end.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "results.h"

namespace detect {

class Summary {
 public:
  explicit Summary(size_t total);

  // Counts the image, reports it on stderr if it could not be read, and prints the progress at intervals.
  void Add(const Outcome &outcome);
  // Returns the lines for stdout.
  std::string Report() const;
  size_t read() const { return latencies_.size(); }

 private:
  using Clock = std::chrono::steady_clock;

  double Elapsed() const;
  void Line(double elapsed);

  size_t total_, unreadable_ = 0, detections_ = 0, not_finite_ = 0;
  bool terminal_;
  std::vector<double> latencies_;  // seconds
  Clock::time_point start_;
  double reported_ = 0;
};

}  // namespace detect
