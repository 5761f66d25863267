// What the program is told: flags, and the file of settings that postprocess.py writes of the model's configuration.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace detect {

// A fault of the user, told in one line.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Without line breaks and escapes, whatever a file's name or a library's message holds.
std::string OneLine(std::string text);

// Named values. Reading one that is missing or of another kind is an InputError that names it.
class Settings {
 public:
  // --name=value, --name value; --settings_path=FILE is read first: lines `name value`. `known` names the flags.
  Settings(const std::vector<std::string> &arguments, const std::vector<std::string> &known);

  // What `name` is where nobody says it.
  void Default(const std::string &name, const std::string &value) { values_.emplace(name, value); }
  bool Has(const std::string &name) const { return values_.count(name) > 0; }
  const std::string &Text(const std::string &name) const;
  int Whole(const std::string &name, int least, int most = 1000000000) const;
  // How many threads `name` asks for.
  int Threads(const std::string &name) const { return Whole(name, 1, 256); }
  double Number(const std::string &name) const;
  bool Flag(const std::string &name) const;
  // Numbers between spaces, `count` of them.
  std::vector<double> Numbers(const std::string &name, size_t count) const;
  std::vector<double> Numbers(const std::string &name) const;

 private:
  void Read(const std::string &path);

  std::vector<std::string> known_;
  std::map<std::string, std::string> values_;
};

}  // namespace detect
