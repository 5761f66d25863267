// The program's settings: flags, and the settings file that postprocess.py writes from the model's configuration.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace detect {

// A fault of the input; the message is one line.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Replaces line breaks and control characters in a file name or a library's message.
std::string OneLine(std::string text);

// Named values. A missing or invalid value raises an InputError that names it.
class Settings {
 public:
  // Parses --name=value and --name value; --settings_path=FILE, lines `name value`, is read first. `known`: names of the flags.
  Settings(const std::vector<std::string> &arguments, const std::vector<std::string> &known);

  // Sets `name` if it has no value.
  void Default(const std::string &name, const std::string &value) { values_.emplace(name, value); }
  bool Has(const std::string &name) const { return values_.count(name) > 0; }
  const std::string &Text(const std::string &name) const;
  int Whole(const std::string &name, int least, int most = 1000000000) const;
  // Returns a number of threads.
  int Threads(const std::string &name) const { return Whole(name, 1, 256); }
  double Number(const std::string &name) const;
  bool Flag(const std::string &name) const;
  // Returns `count` numbers, separated by spaces.
  std::vector<double> Numbers(const std::string &name, size_t count) const;
  std::vector<double> Numbers(const std::string &name) const;

 private:
  void Read(const std::string &path);

  std::vector<std::string> known_;
  std::map<std::string, std::string> values_;
};

}  // namespace detect
