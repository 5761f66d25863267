"""The network as it is exported for programs that do NMS themselves."""
from mindspore import nn


class DecodingNet(nn.Cell):
    """The network with `decode` as its call: (image, image_info) -> all boxes (N, A, 4) and scores (N, A, K)."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.net = net

    def construct(self, image, image_info):
        return self.net.decode(image)
