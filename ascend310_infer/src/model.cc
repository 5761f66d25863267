#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>

#include "include/api/context.h"

namespace detect {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 40;

std::string Shape(const std::vector<int64_t> &shape) {
  std::string text;
  for (int64_t side : shape) {
    text += (text.empty() ? "" : " x ") + std::to_string(side);
  }
  return text;
}

// Returns -1 if a dimension is unknown.
int64_t Elements(const std::vector<int64_t> &shape) {
  int64_t count = 1;
  for (int64_t side : shape) {
    if (side < 0 || (side > 0 && count > kMostElements / side)) {
      return -1;
    }
    count *= side;
  }
  return count;
}

// float16.
struct Half {
  uint16_t bits;

  operator float() const {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
    if (exponent == 31) {
      value = fraction == 0 ? INFINITY : NAN;
    }
    return (bits & 0x8000) != 0 ? -value : value;
  }
};

template <typename T>
std::vector<float> Converted(mindspore::MSTensor *tensor, const std::string &path) {
  const int64_t count = Elements(tensor->Shape());
  const auto data = tensor->Data();
  if (count < 0 || tensor->ElementNum() != count || tensor->DataSize() < static_cast<size_t>(count) * sizeof(T) ||
      (data == nullptr && count > 0)) {
    throw InputError(path + ": an output of the network has shape " + Shape(tensor->Shape()) + ", but not as many values");
  }
  const T *first = static_cast<const T *>(data.get());
  return std::vector<float>(first, first + count);
}

// A float16 graph may still return float32, so the tensor's own type counts.
std::vector<float> Values(mindspore::MSTensor *tensor, const std::string &path) {
  switch (tensor->DataType()) {
    case mindspore::DataType::kNumberTypeFloat32:
      return Converted<float>(tensor, path);
    case mindspore::DataType::kNumberTypeInt32:
      return Converted<int32_t>(tensor, path);
    case mindspore::DataType::kNumberTypeInt64:
      return Converted<int64_t>(tensor, path);
    case mindspore::DataType::kNumberTypeBool:
    case mindspore::DataType::kNumberTypeUInt8:
      return Converted<uint8_t>(tensor, path);
    case mindspore::DataType::kNumberTypeFloat16:
      return Converted<Half>(tensor, path);
    default:
      throw InputError(path + ": an output of the network has type " +
                       std::to_string(static_cast<int>(tensor->DataType())) + ", which is not supported");
  }
}

// Lite reports errors by a status or by an exception whose long text names no file; its log contains that text too.
template <typename Call>
bool Succeeds(const Call &call) {
  try {
    return call().IsOk();
  } catch (const std::exception &) {
    return false;
  }
}

}  // namespace

Model::Model(const std::string &path, const std::string &device, int device_id, int threads) : path_(path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw InputError("mindir_path: no such file: " + path);
  }
  auto context = std::make_shared<mindspore::Context>();
  if (device == "Ascend") {
    auto ascend = std::make_shared<mindspore::AscendDeviceInfo>();
    ascend->SetDeviceID(static_cast<uint32_t>(device_id));
    context->MutableDeviceInfo().push_back(ascend);
  } else {
    context->SetThreadNum(threads);
    context->MutableDeviceInfo().push_back(std::make_shared<mindspore::CPUDeviceInfo>());
  }
  if (!Succeeds([&] { return model_.Build(path, mindspore::kMindIR, context); })) {
    throw InputError(path + ": MindSpore Lite cannot load it on " + device +
                     ": it is not a MINDIR, its version is too new (README.md, MINDIR versions), or " + device +
                     " lacks one of its operators");
  }
}

std::vector<Output> Model::Run(const std::vector<Input> &inputs) {
  auto wanted = model_.GetInputs();
  for (auto &tensor : wanted) {
    const auto same = std::find_if(inputs.begin(), inputs.end(), [&](const Input &i) { return i.shape == tensor.Shape(); });
    if (same == inputs.end() || tensor.DataType() != mindspore::DataType::kNumberTypeFloat32) {
      const auto like = std::find_if(inputs.begin(), inputs.end(),
                                     [&](const Input &i) { return i.shape.size() == tensor.Shape().size(); });
      const auto &given = like == inputs.end() ? inputs.front() : *like;
      throw InputError(path_ + ": the network expects an input of " + Shape(tensor.Shape()) + ", the configuration gives " +
                       Shape(given.shape) + ": pass the --config_path and the size it was exported with, and export it with "
                       "test_batch_size 1");
    }
    const auto bytes = static_cast<size_t>(Elements(same->shape)) * sizeof(float);
    void *data = tensor.MutableData();
    if (data == nullptr || tensor.DataSize() != bytes) {
      throw InputError(path_ + ": MindSpore Lite has no memory for an input of " + Shape(same->shape));
    }
    std::memcpy(data, same->data, bytes);
  }
  std::vector<mindspore::MSTensor> tensors;
  if (!Succeeds([&] { return model_.Predict(wanted, &tensors); })) {
    throw InputError(path_ + ": MindSpore Lite failed to run it");
  }
  std::vector<Output> outputs;
  for (auto &tensor : tensors) {
    outputs.push_back({tensor.Shape(), Values(&tensor, path_)});
  }
  return outputs;
}

}  // namespace detect
