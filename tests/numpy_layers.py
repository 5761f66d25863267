"""Layers in plain float64 numpy, to compare the network with.

Shapes: N images, C channels, O output channels, H x W pixels, k kernel side.
"""
import numpy as np


def convolve(x, weight, stride: int = 1, padding: int = None, dilation: int = 1):
    """x (N, C, H, W), weight (O, C, h, w) -> (N, O, H', W'). padding defaults to h // 2 and w // 2 times the dilation."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    kernel = weight.shape[2:]
    pads = [k // 2 * dilation if padding is None else padding for k in kernel]
    height, width = ((side + 2 * pad - (k - 1) * dilation - 1) // stride + 1 for side, pad, k in zip(x.shape[2:], pads, kernel))
    x = np.pad(x, ((0, 0), (0, 0), *((pad, pad) for pad in pads)))
    out = np.zeros((x.shape[0], weight.shape[0], height, width))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            y, z = i * dilation, j * dilation
            pixels = x[:, :, y:y + stride * (height - 1) + 1:stride, z:z + stride * (width - 1) + 1:stride]
            out += np.einsum("nchw,oc->nohw", pixels, weight[:, :, i, j], optimize=True)
    return out


def convolve_gradients(x, weight, dout, stride: int = 1):
    """Return gradients of sum(convolve(x, weight) * dout) with respect to x and weight."""
    x, weight, dout = (np.asarray(array, np.float64) for array in (x, weight, dout))
    k, (height, width) = weight.shape[-1], dout.shape[2:]
    p = k // 2
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    for i in range(k):
        for j in range(k):
            rows, columns = (slice(a, a + stride * (side - 1) + 1, stride) for a, side in ((i, height), (j, width)))
            dweight[:, :, i, j] = np.einsum("nchw,nohw->oc", x[:, :, rows, columns], dout, optimize=True)
            dx[:, :, rows, columns] += np.einsum("nohw,oc->nchw", dout, weight[:, :, i, j], optimize=True)
    return dx[:, :, p:x.shape[2] - p, p:x.shape[3] - p], dweight


def batch_norm(x, gamma, beta, mean, variance, eps: float = 1e-5):
    """Normalise x with given statistics (C,)."""
    gamma, beta, mean, variance = (np.asarray(a, np.float64).reshape(-1, 1, 1) for a in (gamma, beta, mean, variance))
    return (x - mean) / np.sqrt(variance + eps) * gamma + beta


def max_pool(x, k: int = 3, stride: int = 2, same: bool = False):
    """Pool with padding k // 2 of -inf. same: MindSpore's pad_mode "same", which puts odd padding at the end."""
    p = k // 2
    height, width = ((side + 2 * p - k) // stride + 1 for side in x.shape[2:])
    pads = [(p, p), (p, p)]
    if same:
        missing = [max((-(-side // stride) - 1) * stride + k - side, 0) for side in x.shape[2:]]
        height, width = (-(-side // stride) for side in x.shape[2:])
        pads = [(total // 2, total - total // 2) for total in missing]
    x = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=-np.inf)
    return np.max([x[:, :, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]
                   for i in range(k) for j in range(k)], 0)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def double(x, weight, bias):
    """Transposed convolution 2x2 of stride 2: x (N, C, H, W), weight (C, O, 2, 2), bias (O,) -> (N, O, 2H, 2W)."""
    n, _, height, width = x.shape
    y = np.einsum("nchw,coab->nohawb", x, np.asarray(weight, np.float64), optimize=True)
    return y.reshape(n, -1, 2 * height, 2 * width) + np.asarray(bias, np.float64).reshape(-1, 1, 1)


def enlarge(x, size):
    """Nearest-neighbour enlargement of (N, C, h, w) to `size` = (H, W)."""
    rows, columns = (np.arange(large) * small // large for large, small in zip(size, x.shape[2:]))
    return x[:, :, rows][:, :, :, columns]


def l2_norm(x, scale, epsilon: float = 1e-10):
    """Scale each pixel to length 1 over its channels, times `scale` (C,)."""
    return x / np.sqrt((x * x).sum(1, keepdims=True) + epsilon) * np.asarray(scale, np.float64).reshape(-1, 1, 1)


def level_mmdet(side):
    return np.log2(side / 56 + 1e-6)


def level_detectron2(side):
    return 2 + np.log2(side / 224 + 1e-8)


def level_torchvision(side):
    return 2 + np.log2(np.maximum(side, 1e-30) / 224) + 1e-6


def level_mslab(side):
    return np.log2(side / 56 + 1e-6 + 1e-4)


LEVELS_OF_ROIS = {"mmdet": level_mmdet, "detectron2": level_detectron2, "torchvision": level_torchvision, "mslab": level_mslab}


def roi_align(features, rois, bins: int, aligned: bool, samples: int, level_of):
    """features (N, C, H_l, W_l) of strides 4, 8, ..., rois (N, R, 4) -> (N * R, C, bins, bins).

    samples: per bin and axis; 0: one per cell of the bin. level_of: one of LEVELS_OF_ROIS, side of a square RoI -> real-valued
    level.
    """
    rois = np.asarray(rois, np.float64)
    out = []
    for image, boxes in enumerate(rois):
        sides = np.sqrt((np.maximum(boxes[:, 2:] - boxes[:, :2], 0)).prod(1))
        levels = np.clip(np.floor(level_of(sides)), 0, len(features) - 1).astype(int)
        for box, level in zip(boxes, levels):
            feature = features[level][image]
            corners = box / (4 << level) - (0.5 if aligned else 0)
            sizes = np.maximum(corners[2:] - corners[:2], 0 if aligned else 1)
            columns, rows = (sampling(*axis, bins, samples) for axis in zip(corners[:2], sizes, feature.shape[:0:-1]))
            out.append(rows @ feature @ columns.T)
    return np.stack(out)


def sampling(start, size, length: int, bins: int, samples: int):
    """Return the weights (bins, length) of cells along one axis of RoIAlign: the mean over a bin's bilinear samples."""
    count = samples or int(np.ceil(size / bins))
    point = start + (np.arange(bins * count) + 0.5) * (size / bins / max(count, 1))
    known = (point >= -1) & (point <= length)
    point = np.clip(point, 0, length - 1)[:, None]
    weights = np.maximum(1 - np.abs(point - np.arange(length)), 0) * known[:, None]
    return weights.reshape(bins, count, length).mean(1) if count else np.zeros((bins, length))
