// Pastes masks of boxes into the image as COCO RLE, as mask_rcnn/src/paste_masks.py does.
#pragma once

#include <string>

#include "image.h"
#include "nms.h"

namespace detect {

// Placement of mask cells: by detectron2 and mmdet (kGrid), by torchvision (kTruncated), or by mindspore-lab (kRounded), where a
// pixel that equals the threshold is outside.
enum class PasteRule { kGrid, kTruncated, kRounded };

// Returns the compressed counts of COCO RLE. mask: side x side probabilities; box: in pixels of the image of `size`; pixels of at
// least `threshold` belong to the object.
std::string PasteRle(const float *mask, int side, const std::array<double, 4> &box, Size size, float threshold, PasteRule rule);

// Returns the compressed counts of alternating runs of 0 and 1.
std::string CompressRuns(const std::vector<uint32_t> &runs);

}  // namespace detect
