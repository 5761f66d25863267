#include "settings.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace detect {
namespace {

double ParseNumber(const std::string &name, const std::string &text) {
  char *end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  // strtod would also accept spaces, hexadecimal digits and words.
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string::npos || *end != 0 || !std::isfinite(value)) {
    throw InputError(name + ": expected a number, got '" + text + "'");
  }
  return value;
}

}  // namespace

std::string OneLine(std::string text) {
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

Settings::Settings(const std::vector<std::string> &arguments, const std::vector<std::string> &known)
    : known_(known) {
  std::map<std::string, std::string> flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string &word = arguments[i];
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    if (name.size() < 3 || name.compare(0, 2, "--") != 0) {
      throw InputError("unexpected argument '" + word + "': expected --key=value");
    }
    const std::string key = name.substr(2);
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw InputError(name + ": unknown option; --help lists them");
    }
    if (equals == std::string::npos && i + 1 == arguments.size()) {
      throw InputError(name + ": expected a value after it");
    }
    flags[key] = equals == std::string::npos ? arguments[++i] : word.substr(equals + 1);
  }
  const auto path = flags.find("settings_path");
  if (path != flags.end()) {
    Read(path->second);
  }
  for (const auto &flag : flags) {
    values_[flag.first] = flag.second;
  }
}

void Settings::Read(const std::string &path) {
  std::ifstream stream(path);
  if (!stream) {
    throw InputError("settings_path: " + path + ": " + std::strerror(errno));
  }
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    const size_t space = line.find(' ');
    if (space == 0 || space == std::string::npos) {
      throw InputError(path + ": line " + std::to_string(number) + ": expected a name and a value");
    }
    values_[line.substr(0, space)] = line.substr(space + 1);
  }
}

const std::string &Settings::Text(const std::string &name) const {
  const auto found = values_.find(name);
  if (found == values_.end() || found->second.empty()) {
    const bool flag = std::find(known_.begin(), known_.end(), name) != known_.end();
    throw InputError(name + " is required: give " + (flag ? "--" + name + "=VALUE, or " : "") +
                     "a --settings_path with it, as postprocess.py writes");
  }
  return found->second;
}

double Settings::Number(const std::string &name) const { return ParseNumber(name, Text(name)); }

int Settings::Whole(const std::string &name, int least, int most) const {
  const double value = Number(name);
  if (value != std::floor(value) || value < least || value > most) {
    throw InputError(name + ": expected a whole number from " + std::to_string(least) + " to " + std::to_string(most) +
                     ", got '" + Text(name) + "'");
  }
  return static_cast<int>(value);
}

bool Settings::Flag(const std::string &name) const {
  std::string text = Text(name);
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  if (text != "true" && text != "false") {
    throw InputError(name + ": expected true or false, got '" + Text(name) + "'");
  }
  return text == "true";
}

std::vector<double> Settings::Numbers(const std::string &name) const {
  std::istringstream words(Has(name) ? values_.at(name) : Text(name));    // an empty value means no numbers
  std::vector<double> values;
  for (std::string word; words >> word;) {
    values.push_back(ParseNumber(name, word));
  }
  return values;
}

std::vector<double> Settings::Numbers(const std::string &name, size_t count) const {
  const auto values = Numbers(name);
  if (values.size() != count) {
    throw InputError(name + ": expected " + std::to_string(count) + " numbers, got '" + Text(name) + "'");
  }
  return values;
}

}  // namespace detect
