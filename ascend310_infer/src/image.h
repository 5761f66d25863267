// Images on their way to the network. Sizes are (height, width); pixels are in row-major order.
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

// height x width x 3 bytes, BGR.
struct Image {
  Size size;
  std::vector<uint8_t> bgr;
};

// height x width x 3 float32, BGR, 0 to 255.
struct FloatImage {
  Size size;
  std::vector<float> bgr;
};

// Decodes a JPEG or PNG file as cv2.imdecode does: 8 bits, no alpha. upright: apply the EXIF orientation. Throws
// std::runtime_error with the reason.
Image Decode(const std::vector<uint8_t> &data, bool upright);

// Returns the EXIF orientation of a JPEG or PNG file, 1 to 8: 3 is upside down, 6 a quarter turn to the right; 1 if missing.
int FindOrientation(const std::vector<uint8_t> &data);
Image Turn(Image image, int orientation);

// Bilinear resizing with pixel centres at +0.5, as cv2.resize and PIL.Image.resize. scale: output pixels per input pixel, if it
// differs from the ratio of the sizes; 0 = the ratio. ResizeArea is cv2.INTER_AREA, for shrinking.
Image ResizeOpenCv(const Image &image, Size size, double scale = 0);
Image ResizeArea(const Image &image, Size size, double scale = 0);
FloatImage ResizeFloat(const Image &image, Size size);
Image ResizePillow(const Image &image, Size size);

}  // namespace detect
