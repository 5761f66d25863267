#include "summary.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace detect {
namespace {

constexpr double kEverySeconds = 10, kEverySecondsOnTerminal = 0.5;

// Returns the smallest value that the fraction `part` of the values does not exceed.
double Percentile(const std::vector<double> &sorted, double part) {
  const double rank = std::ceil(part * static_cast<double>(sorted.size()));
  return sorted[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

}  // namespace

Summary::Summary(size_t total) : total_(total), terminal_(isatty(STDERR_FILENO) == 1), start_(Clock::now()) {}

double Summary::Elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

void Summary::Add(const Outcome &outcome) {
  if (!outcome.problem.empty()) {
    ++unreadable_;
    std::fprintf(stderr, "%s%s: %s\n", terminal_ ? "\r\033[K" : "", OneLine(outcome.file.name).c_str(),
                 OneLine(outcome.problem).c_str());
  } else {
    latencies_.push_back(outcome.seconds);
    detections_ += outcome.found.boxes.size();
    not_finite_ += outcome.found.not_finite;
  }
  const double elapsed = Elapsed();
  const bool last = latencies_.size() + unreadable_ == total_;
  if (last || elapsed - reported_ >= (terminal_ ? kEverySecondsOnTerminal : kEverySeconds)) {
    Line(elapsed);
    if (last && terminal_) {
      std::fputc('\n', stderr);
    }
  }
}

void Summary::Line(double elapsed) {
  reported_ = elapsed;
  const size_t done = latencies_.size() + unreadable_;
  const double rate = static_cast<double>(done) / std::max(elapsed, 1e-9);
  std::fprintf(stderr, "%sinfer: %zu/%zu img, %.2f img/s, %.0f s left%s", terminal_ ? "\r\033[K" : "", done, total_, rate,
               static_cast<double>(total_ - done) / rate, terminal_ ? "" : "\n");
  std::fflush(stderr);
}

std::string Summary::Report() const {
  auto sorted = latencies_;
  std::sort(sorted.begin(), sorted.end());
  const double elapsed = Elapsed();
  char text[400];
  std::snprintf(text, sizeof text,
                "%zu image%s, %zu not readable, %zu detection%s, %.1f s: %.2f images/s\n"
                "latency of network and NMS in ms: 50%% %.2f, 90%% %.2f, 99%% %.2f, most %.2f\n",
                read(), read() == 1 ? "" : "s", unreadable_, detections_, detections_ == 1 ? "" : "s", elapsed,
                static_cast<double>(read()) / std::max(elapsed, 1e-9),
                1e3 * Percentile(sorted, 0.5), 1e3 * Percentile(sorted, 0.9), 1e3 * Percentile(sorted, 0.99),
                1e3 * sorted.back());
  return not_finite_ == 0 ? text : text + std::to_string(not_finite_) + " boxes or scores were left out: not finite\n";
}

}  // namespace detect
