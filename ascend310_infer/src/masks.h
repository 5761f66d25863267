// Masks of boxes -> COCO's run-length encoding in the picture, as mask_rcnn/src/paste_masks.py does it.
#pragma once

#include <string>

#include "image.h"
#include "nms.h"

namespace detect {

// Where the cells of a mask lie: detectron2's and mmdet's rule, torchvision's, or mindspore-lab's, where a pixel of just the
// threshold is outside.
enum class PasteRule { kGrid, kTruncated, kRounded };

// mask: side x side probabilities; box: in pixels of the picture of `size`; at least `threshold` belongs to the object.
// Gives the compressed counts of COCO's RLE.
std::string PasteRle(const float *mask, int side, const std::array<double, 4> &box, Size size, float threshold, PasteRule rule);

// Compressed counts of runs of 0 and of 1 in turn.
std::string CompressRuns(const std::vector<uint32_t> &runs);

}  // namespace detect
