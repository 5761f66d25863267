"""Layers in float64 numpy, written the plainest way, to hold the network against.

Shapes: N images, C channels, O output channels, H x W pixels, k kernel side.
"""
import numpy as np


def convolve(x, weight, stride: int = 1, padding: int = None):
    """x (N, C, H, W), weight (O, C, h, w) -> (N, O, H', W'); padding h // 2 and w // 2 unless given."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    kernel = weight.shape[2:]
    pads = [k // 2 if padding is None else padding for k in kernel]
    height, width = ((side + 2 * pad - k) // stride + 1 for side, pad, k in zip(x.shape[2:], pads, kernel))
    x = np.pad(x, ((0, 0), (0, 0), *((pad, pad) for pad in pads)))
    out = np.zeros((x.shape[0], weight.shape[0], height, width))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            pixels = x[:, :, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]
            out += np.einsum("nchw,oc->nohw", pixels, weight[:, :, i, j], optimize=True)
    return out


def convolve_gradients(x, weight, dout, stride: int = 1):
    """Gradients of sum(convolve(x, weight) * dout) with respect to x and weight."""
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
    """With given statistics (C,)."""
    gamma, beta, mean, variance = (np.asarray(a, np.float64).reshape(-1, 1, 1) for a in (gamma, beta, mean, variance))
    return (x - mean) / np.sqrt(variance + eps) * gamma + beta


def max_pool(x, k: int = 3, stride: int = 2):
    """Padding k // 2, which never wins."""
    p = k // 2
    height, width = ((side + 2 * p - k) // stride + 1 for side in x.shape[2:])
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), constant_values=-np.inf)
    return np.max([x[:, :, i:i + stride * (height - 1) + 1:stride, j:j + stride * (width - 1) + 1:stride]
                   for i in range(k) for j in range(k)], 0)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
