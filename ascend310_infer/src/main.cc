// Detects objects in the images of a folder with an exported network, on Ascend or the CPU.
//
// Reading, decoding and preprocessing (threads), inference (this thread) and writing (a thread) overlap. Bounded queues between
// them keep the images in order and limit the memory.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <thread>

#include "detector.h"
#include "files.h"
#include "queue.h"
#include "results.h"
#include "settings.h"
#include "summary.h"

namespace detect {
namespace {

constexpr const char *kUsage =
    "usage: detect --mindir_path=F --settings_path=F --input_path=FOLDER --output_path=RESULTS.jsonl\n"
    "              [--device_type=Ascend|CPU] [--device_id=N] [--img_width=N --img_height=N] [--keep_ratio=true|false]\n"
    "              [--threads=N] [--readers=N]\n"
    "  settings_path  file written by postprocess.py --settings_path=F; flags override it\n"
    "  threads        for the network on the CPU and for RoIAlign (default: from the file, or one per core)\n"
    "  readers        threads that read and decode images (default: 2)\n";

const std::vector<std::string> kFlags = {"mindir_path", "settings_path", "input_path", "output_path", "device_type",
                                         "device_id", "img_width", "img_height", "keep_ratio", "threads", "readers"};

struct Loaded {
  ImageFile file;
  std::string problem;
  NetworkInput input;
};

Loaded Load(const ImageFile &file, const Preprocess &preprocess) {
  Loaded loaded{file, "", {}};
  try {
    loaded.input = preprocess(Decode(ReadFile(file.path), preprocess.upright()));
  } catch (const std::exception &error) {
    loaded.problem = error.what();
  }
  return loaded;
}

// The stages of the run, and the threads of the first and last stage.
class Pipeline {
 public:
  Pipeline(const std::vector<ImageFile> &files, const Preprocess &preprocess, ResultsWriter *writer, Summary *summary,
           int readers)
      : files_(files), loaded_(2 * static_cast<size_t>(readers)), outcomes_(16) {
    try {
      for (int i = 0; i < readers; ++i) {
        threads_.emplace_back([this, &preprocess] { Read(preprocess); });
      }
      threads_.emplace_back([this, writer, summary] { Write(writer, summary); });
    } catch (...) {
      Stop();  // a destructor does not run after its constructor has failed
      throw;
    }
  }

  ~Pipeline() { Stop(); }

  // Runs inference on this thread. Rethrows an exception of another thread.
  void Run(Detector *detector, Size canvas) {
    for (size_t i = 0; i < files_.size(); ++i) {
      auto loaded = loaded_.Take();
      if (!loaded) {
        break;
      }
      Outcome outcome{std::move(loaded->file), std::move(loaded->problem), loaded->input.info, {}, 0};
      if (outcome.problem.empty()) {
        const auto start = std::chrono::steady_clock::now();
        outcome.found = (*detector)(loaded->input, canvas);
        outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      }
      if (!outcomes_.Put(i, std::move(outcome))) {
        break;
      }
    }
    Join();
    if (error_) {
      std::rethrow_exception(error_);
    }
  }

 private:
  void Read(const Preprocess &preprocess) {
    for (size_t i = claimed_++; i < files_.size(); i = claimed_++) {
      if (!loaded_.Put(i, Load(files_[i], preprocess))) {
        return;
      }
    }
  }

  void Write(ResultsWriter *writer, Summary *summary) {
    try {
      for (size_t i = 0; i < files_.size(); ++i) {
        auto outcome = outcomes_.Take();
        if (!outcome) {
          return;
        }
        writer->Add(*outcome);
        summary->Add(*outcome);
      }
    } catch (...) {
      error_ = std::current_exception();
      loaded_.Close();
      outcomes_.Close();
    }
  }

  void Stop() {
    loaded_.Close();
    outcomes_.Close();
    Join();
  }

  void Join() {
    for (auto &thread : threads_) {
      if (thread.joinable()) {
        thread.join();
      }
    }
  }

  const std::vector<ImageFile> &files_;
  OrderedQueue<Loaded> loaded_;
  OrderedQueue<Outcome> outcomes_;
  std::atomic<size_t> claimed_{0};
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
};

void Run(const std::vector<std::string> &arguments) {
  Settings settings(arguments, kFlags);
  settings.Default("device_type", "Ascend");
  settings.Default("device_id", "0");
  settings.Default("threads", std::to_string(std::clamp(std::thread::hardware_concurrency(), 1u, 256u)));
  settings.Default("readers", "2");
  const std::string &device = settings.Text("device_type");
  if (device != "Ascend" && device != "CPU") {
    throw InputError("device_type: expected Ascend or CPU, got '" + device + "'");
  }
  const auto files = FindImages(settings.Text("input_path"));
  const Preprocess preprocess(settings);
  Detector detector(settings);
  ResultsWriter writer(settings);
  Summary summary(files.size());
  Pipeline(files, preprocess, &writer, &summary, settings.Threads("readers")).Run(&detector, preprocess.canvas());
  writer.Finish();
  if (summary.read() == 0) {
    throw InputError("input_path: none of the images in " + settings.Text("input_path") + " could be read");
  }
  std::fputs(summary.Report().c_str(), stdout);
}

}  // namespace
}  // namespace detect

int main(int count, char **words) {
  const std::vector<std::string> arguments(words + 1, words + count);
  for (const auto &word : arguments) {
    if (word == "-h" || word == "--help") {
      std::fputs(detect::kUsage, stdout);
      return 0;
    }
  }
  std::signal(SIGXFSZ, SIG_IGN);  // so that exceeding the file size limit is reported like a full disk
  try {
    detect::Run(arguments);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "detect: error: %s\n", detect::OneLine(error.what()).c_str());
    return 2;
  }
  return 0;
}
