// Decoding with libjpeg and libpng. Both report errors by longjmp, so functions that call setjmp must not hold objects with
// destructors.
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include <jpeglib.h>

#include <jerror.h>
#include <png.h>

#include "image.h"

namespace detect {
namespace {

// The limits of infer.py: a larger file is assumed to be damaged, since its pixels would take 800 MB.
constexpr int64_t kMostPixels = int64_t{1} << 28, kLongestSide = 1000000;

// Returns false if memory runs out: the libraries' memory must be freed before an exception is thrown.
template <typename T>
bool Resize(size_t count, std::vector<T> *values) {
  try {
    values->resize(count);
  } catch (const std::bad_alloc &) {
    return false;
  }
  return true;
}

bool Allocate(int64_t height, int64_t width, int64_t channels, Size *size, std::vector<uint8_t> *pixels) {
  if (height <= 0 || width <= 0 || height > kLongestSide || width > kLongestSide || height * width > kMostPixels) {
    return false;
  }
  *size = {static_cast<int>(height), static_cast<int>(width)};
  return Resize(static_cast<size_t>(height * width * channels), pixels);
}

struct JpegErrors {
  jpeg_error_mgr base;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

void JpegFail(j_common_ptr info) {
  auto *errors = reinterpret_cast<JpegErrors *>(info->err);
  errors->base.format_message(info, errors->message);
  std::longjmp(errors->back, 1);
}

// libjpeg tolerates damage and fills missing data at the end with grey; OpenCV rejects such files.
void JpegNote(j_common_ptr info, int level) {
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) {
    JpegFail(info);
  }
}

// channels: 4 for CMYK, otherwise 3.
bool ReadJpeg(const uint8_t *data, size_t length, Size *size, int *channels, std::vector<uint8_t> *pixels,
              JpegErrors *errors) {
  jpeg_decompress_struct info;
  std::memset(&info, 0, sizeof info);
  info.err = jpeg_std_error(&errors->base);
  errors->base.error_exit = JpegFail;
  errors->base.emit_message = JpegNote;
  if (setjmp(errors->back) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, data, static_cast<unsigned long>(length));
  jpeg_read_header(&info, TRUE);
  *channels = info.num_components == 4 ? 4 : 3;
  info.out_color_space = *channels == 4 ? JCS_CMYK : JCS_EXT_BGR;
  if (!Allocate(info.image_height, info.image_width, *channels, size, pixels)) {
    std::snprintf(errors->message, sizeof errors->message, "too many pixels");
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_start_decompress(&info);
  const size_t stride = static_cast<size_t>(size->width) * static_cast<size_t>(*channels);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels->data() + info.output_scanline * stride;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

// Converts Adobe's CMYK, whose inks are inverted.
std::vector<uint8_t> BgrOfCmyk(const std::vector<uint8_t> &cmyk) {
  std::vector<uint8_t> bgr(cmyk.size() / 4 * 3);
  for (size_t i = 0, j = 0; i + 3 < cmyk.size(); i += 4, j += 3) {
    const int black = cmyk[i + 3];
    for (size_t c = 0; c < 3; ++c) {
      bgr[j + 2 - c] = static_cast<uint8_t>(black - (((255 - cmyk[i + c]) * black) >> 8));
    }
  }
  return bgr;
}

struct PngInput {
  const uint8_t *data;
  size_t length;
  size_t place;
  char message[128];
};

void PngFail(png_structp png, png_const_charp message) {
  auto *input = static_cast<PngInput *>(png_get_error_ptr(png));
  std::snprintf(input->message, sizeof input->message, "%s", message);
  png_longjmp(png, 1);
}

void PngNote(png_structp, png_const_charp) {}

void PngRead(png_structp png, png_bytep out, size_t count) {
  auto *input = static_cast<PngInput *>(png_get_io_ptr(png));
  if (count > input->length - input->place) {
    png_error(png, "the file ends early");
  }
  std::memcpy(out, input->data + input->place, count);
  input->place += count;
}

bool ReadPng(PngInput *input, Size *size, std::vector<uint8_t> *pixels, std::vector<png_bytep> *rows) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, input, PngFail, PngNote);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    return false;
  }
  if (setjmp(png_jmpbuf(png)) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_read_fn(png, input, PngRead);
  png_read_info(png, info);
  if (!Allocate(png_get_image_height(png, info), png_get_image_width(png, info), 3, size, pixels)) {
    png_error(png, "too many pixels");
  }
  png_set_expand(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  png_set_gray_to_rgb(png);
  png_set_bgr(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != static_cast<size_t>(size->width) * 3) {
    png_error(png, "rows of an unexpected length");
  }
  if (!Resize(static_cast<size_t>(size->height), rows)) {
    png_error(png, "too many rows");
  }
  for (size_t y = 0; y < rows->size(); ++y) {
    (*rows)[y] = pixels->data() + y * static_cast<size_t>(size->width) * 3;
  }
  png_read_image(png, rows->data());
  png_read_end(png, nullptr);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

// Decodes without applying the orientation.
Image DecodeStored(const std::vector<uint8_t> &data) {
  static const uint8_t kPng[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  Image image;
  if (data.size() > 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff) {
    JpegErrors errors;
    errors.message[0] = 0;
    int channels = 3;
    if (!ReadJpeg(data.data(), data.size(), &image.size, &channels, &image.bgr, &errors)) {
      throw std::runtime_error(std::string("not a JPEG that can be decoded: ") + errors.message);
    }
    if (channels == 4) {
      image.bgr = BgrOfCmyk(image.bgr);
    }
    return image;
  }
  if (data.size() > sizeof kPng && std::memcmp(data.data(), kPng, sizeof kPng) == 0) {
    PngInput input = {data.data(), data.size(), 0, {0}};
    std::vector<png_bytep> rows;
    if (!ReadPng(&input, &image.size, &image.bgr, &rows)) {
      throw std::runtime_error(std::string("not a PNG that can be decoded: ") + input.message);
    }
    return image;
  }
  throw std::runtime_error("neither JPEG nor PNG (" + std::to_string(data.size()) + " bytes)");
}

}  // namespace

Image Decode(const std::vector<uint8_t> &data, bool upright) {
  Image image = DecodeStored(data);
  return upright ? Turn(std::move(image), FindOrientation(data)) : image;
}

}  // namespace detect
