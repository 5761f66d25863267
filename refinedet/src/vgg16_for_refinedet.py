"""VGG-16 with fully connected layers turned into convolutions (Simonyan and Zisserman, 2015; Liu et al., "SSD", 2016).

Shapes: N images of H x W pixels, both multiples of 64. The maps have strides 8, 16, 32, 64.
"""

from mindspore import nn, ops
from mindspore.common.initializer import HeNormal

from .freezing import freeze
from .l2norm import L2Norm
from .model_utils.layers.convolution import Conv2d
from .norm_conv import NormConv2d, PooledNormConv2d

STRIDES = (8, 16, 32, 64)
# Prefixes of the layers that each further value of frozen_stages freezes.
STAGES = ("conv1_", "conv2_", "conv3_", "conv4_", "conv5_")


class Vgg16(nn.Cell):
    """The trunk: conv1_1 .. conv5_3, fc6 (3x3, dilation 3), fc7 (1x1), conv6_1 (1x1), conv6_2 (3x3, stride 2).

    All convolutions have a bias and no norm, and are followed by a ReLU; all five poolings halve the side. (SSD's fifth pooling
    does not, and its fc6 has dilation 6.) New weights are initialised as in He et al., 2015, which keeps the scale of activations.

    Args:
        channels: of the five blocks; fc_channels: of fc6 and fc7; extra_channels: of conv6_1 and conv6_2.
        l2norm_scales: initial factors of the normalisation of conv4_3 and conv5_3.
    """

    residual = False

    def __init__(self, channels, fc_channels: int, extra_channels, l2norm_scales=(10.0, 8.0), batch_norm: bool = False,
                 fast: bool = False):
        super().__init__()
        one, two, three, four, five = channels
        squeezed, last = extra_channels

        def conv(entering, leaving, kernel_size=3, pooled=False, **more):
            kind = (PooledNormConv2d if pooled else NormConv2d) if batch_norm else (PooledConv2d if pooled else Conv2d)
            return kind(entering, leaving, kernel_size, HeNormal(nonlinearity="relu"), fast, **more)

        self.conv1_1, self.conv1_2 = conv(3, one), conv(one, one, pooled=True)
        self.conv2_1, self.conv2_2 = conv(one, two), conv(two, two, pooled=True)
        self.conv3_1, self.conv3_2, self.conv3_3 = conv(two, three), conv(three, three), conv(three, three, pooled=True)
        self.conv4_1, self.conv4_2, self.conv4_3 = conv(three, four), conv(four, four), conv(four, four)
        self.conv5_1, self.conv5_2, self.conv5_3 = conv(four, five), conv(five, five), conv(five, five)
        self.fc6, self.fc7 = conv(five, fc_channels, dilation=3), conv(fc_channels, fc_channels, 1)
        self.conv6_1, self.conv6_2 = conv(fc_channels, squeezed, 1), conv(squeezed, last, stride=2)
        self.conv4_3_norm, self.conv5_3_norm = L2Norm(four, l2norm_scales[0]), L2Norm(five, l2norm_scales[1])
        self.out_channels = (four, five, fc_channels, last)
        self.pool = ops.MaxPool((2, 2), (2, 2))

    def construct(self, image):
        """Map (N, 3, H, W) to the four source maps. The first two are normalised; the trunk continues from them unnormalised."""
        x = ops.relu(self.conv1_2(ops.relu(self.conv1_1(image))))              # (N, 64, H/2, W/2)
        x = ops.relu(self.conv2_2(ops.relu(self.conv2_1(x))))                  # (N, 128, H/4, W/4)
        x = ops.relu(self.conv3_3(ops.relu(self.conv3_2(ops.relu(self.conv3_1(x))))))      # (N, 256, H/8, W/8)
        conv4_3 = ops.relu(self.conv4_3(ops.relu(self.conv4_2(ops.relu(self.conv4_1(x))))))
        x = self.pool(conv4_3)                                                 # (N, 512, H/16, W/16)
        conv5_3 = ops.relu(self.conv5_3(ops.relu(self.conv5_2(ops.relu(self.conv5_1(x))))))
        x = self.pool(conv5_3)                                                 # (N, 512, H/32, W/32)
        fc7 = ops.relu(self.fc7(ops.relu(self.fc6(x))))                        # (N, 1024, H/32, W/32)
        conv6_2 = ops.relu(self.conv6_2(ops.relu(self.conv6_1(fc7))))          # (N, 512, H/64, W/64)
        return self.conv4_3_norm(conv4_3), self.conv5_3_norm(conv5_3), fc7, conv6_2


class PooledConv2d(Conv2d):
    """Convolution and 2x2 max pool: (N, C, H, W) -> (N, O, H/2, W/2).

    Neither the bias nor a ReLU changes which pixel is the largest, so with `fast` they are applied to a quarter of the pixels.
    Otherwise the bias comes first: MindSpore 2.10 only exports a bias to ONNX that directly follows its convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight_init=None, fast: bool = False):
        super().__init__(in_channels, out_channels, kernel_size, weight_init, fast)
        self.pool, self.fast = ops.MaxPool((2, 2), (2, 2)), fast

    def construct(self, x):
        x = self.conv(x, self.weight)
        if self.fast:
            return ops.bias_add(self.pool(x), self.bias)
        return self.pool(ops.bias_add(x, self.bias))


def build_vgg16(config, fast: bool = False) -> Vgg16:
    """Return the trunk that the configuration describes."""
    backbone = Vgg16(config.vgg_channels, config.fc_channels, config.extra_channels, config.l2norm_scales, config.batch_norm, fast)
    freeze(backbone, STAGES[:config.frozen_stages])
    return backbone
