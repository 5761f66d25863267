// Pictures on their way to the network. Sizes are (height, width); pixels lie row by row.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace detect {

struct Size {
  int height = 0;
  int width = 0;
  bool operator==(const Size &other) const { return height == other.height && width == other.width; }
};

// height x width x 3 bytes: blue, green, red.
struct Picture {
  Size size;
  std::vector<uint8_t> bgr;
};

// The same with 32-bit floats, values 0 to 255.
struct FloatPicture {
  Size size;
  std::vector<float> bgr;
};

// A JPEG or PNG file as OpenCV's imdecode gives it: 8 bits, no alpha. upright: turned by its EXIF orientation.
// std::runtime_error says what is wrong with it.
Picture Decode(const std::vector<uint8_t> &data, bool upright);

// The EXIF orientation of a JPEG or PNG file, 1 to 8: 3 is upside down, 6 a quarter to the right; 1 without one.
int FindOrientation(const std::vector<uint8_t> &data);
Picture Turn(Picture picture, int orientation);

// Bilinear, pixel centres at +0.5, as cv2.resize and PIL.Image.resize. scale: pixels of the result per pixel, where it is not
// `size` over the picture's own; 0 = it is. ResizeArea is cv2.INTER_AREA, for pictures that shrink.
Picture ResizeOpenCv(const Picture &picture, Size size, double scale = 0);
Picture ResizeArea(const Picture &picture, Size size, double scale = 0);
FloatPicture ResizeFloat(const Picture &picture, Size size);
Picture ResizePillow(const Picture &picture, Size size);

}  // namespace detect
