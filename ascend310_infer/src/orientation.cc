// Finds the EXIF orientation of JPEG and PNG files, as src/model_utils/data/image_header.py of the models.
#include <algorithm>
#include <cstring>

#include "image.h"

namespace detect {
namespace {

using Bytes = std::vector<uint8_t>;

// [start, end) in the bytes of a file; empty if nothing was found.
struct Span {
  size_t start = 0;
  size_t end = 0;
};

uint32_t Number(const Bytes &data, size_t place, int bytes, bool little) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) {
    value = value << 8 | data[place + static_cast<size_t>(little ? bytes - 1 - i : i)];
  }
  return value;
}

bool Holds(const Bytes &data, size_t place, const char *text, size_t length) {
  return place + length <= data.size() && std::memcmp(data.data() + place, text, length) == 0;
}

Span ExifOfJpeg(const Bytes &data) {
  for (size_t place = 2; place + 4 <= data.size() && data[place] == 0xff;) {
    const int marker = data[place + 1];
    if (marker == 0xff) {  // padding
      ++place;
    } else if ((marker >= 0xd0 && marker <= 0xd9) || marker == 0x01) {
      place += 2;
    } else if (marker == 0xda) {
      break;
    } else {
      const size_t end = place + 2 + Number(data, place + 2, 2, false);
      if (marker == 0xe1 && Holds(data, place + 4, "Exif\0\0", 6)) {
        return {place + 10, std::min(end, data.size())};
      }
      place = end;
    }
  }
  return {};
}

Span ExifOfPng(const Bytes &data) {
  for (size_t place = 8; place + 12 <= data.size();) {
    const size_t length = Number(data, place, 4, false), start = place + 8;
    if (start + 4 + length > data.size()) {
      break;
    }
    if (Holds(data, place + 4, "eXIf", 4)) {
      return {start, start + length};
    }
    place = start + length + 4;
  }
  return {};
}

constexpr size_t kEntry = 12;  // bytes of an entry of a TIFF table
constexpr uint32_t kOrientation = 0x112, kShort = 3, kLong = 4;

}  // namespace

int FindOrientation(const Bytes &data) {
  const Span exif = data.size() > 1 && data[0] == 0xff && data[1] == 0xd8 ? ExifOfJpeg(data) : ExifOfPng(data);
  if (exif.end < exif.start + 8) {
    return 1;
  }
  const bool little = Holds(data, exif.start, "II*\0", 4);
  if (!little && !Holds(data, exif.start, "MM\0*", 4)) {
    return 1;
  }
  size_t place = exif.start + Number(data, exif.start + 4, 4, little);
  if (place + 2 > exif.end) {
    return 1;
  }
  const uint32_t count = Number(data, place, 2, little);
  place += 2;
  for (uint32_t i = 0; i < count && place + 8 <= exif.end; ++i, place += kEntry) {
    if (Number(data, place, 2, little) != kOrientation) {
      continue;
    }
    const uint32_t kind = Number(data, place + 2, 2, little), values = Number(data, place + 4, 4, little);
    if ((kind != kShort && kind != kLong) || values == 0) {
      return 1;
    }
    size_t where = place + 8;
    if (static_cast<uint64_t>(values) * (kind == kShort ? 2 : 4) > 4) {  // the entry holds their offset
      if (where + 4 > exif.end) {
        return 1;
      }
      where = exif.start + Number(data, where, 4, little);
    }
    const int bytes = kind == kShort ? 2 : 4;
    if (where + static_cast<size_t>(bytes) > exif.end) {
      return 1;
    }
    const uint32_t value = Number(data, where, bytes, little);
    return value >= 2 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image Turn(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) {
    return image;
  }
  const bool swapped = orientation >= 5;
  const int height = image.size.height, width = image.size.width;
  // The ends of the stored rows and columns at which the turned image starts.
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image turned;
  turned.size = swapped ? Size{width, height} : image.size;
  turned.bgr.resize(image.bgr.size());
  uint8_t *out = turned.bgr.data();
  for (int y = 0; y < turned.size.height; ++y) {
    for (int x = 0; x < turned.size.width; ++x, out += 3) {
      int row = swapped ? x : y, column = swapped ? y : x;
      row = from_below ? height - 1 - row : row;
      column = from_right ? width - 1 - column : column;
      std::memcpy(out, image.bgr.data() + (static_cast<size_t>(row) * width + column) * 3, 3);
    }
  }
  return turned;
}

}  // namespace detect
