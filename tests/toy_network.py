"""Networks with a detector's interface and hardly any arithmetic, for tests of the code around it."""
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

LOSS_NAMES = ("rpn_cls_loss", "rpn_reg_loss", "rcnn_cls_loss", "rcnn_reg_loss")
MASK_LOSS_NAMES = (*LOSS_NAMES, "rcnn_mask_loss")
ONE_STAGE_LOSS_NAMES = ("arm_loc_loss", "arm_conf_loss", "odm_loc_loss", "odm_conf_loss")


def _parameter(shape, name, seed, requires_grad=True):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Parameter(Tensor(values), name=name, requires_grad=requires_grad)


class Part(nn.Cell):
    """Parameters under one prefix: {name: (shape, trains)}."""

    def __init__(self, parameters: dict, seed: int):
        super().__init__()
        for i, (name, (shape, trains)) in enumerate(parameters.items()):
            setattr(self, name, _parameter(shape, name, [seed, i], trains))


class LinearNet(nn.Cell):
    """Losses with known gradients: a + weight for weight, b for gamma, c for bias. Call: net(a, b, c)."""

    def __init__(self):
        super().__init__()
        self.fc = Part({"weight": ((2, 3), True), "bias": ((3,), True)}, 0)
        self.norm = Part({"gamma": ((3,), True), "moving_mean": ((3,), False)}, 1)

    def construct(self, a, b, c):
        return ((self.fc.weight * a).sum(), (self.norm.gamma * b).sum(), (self.fc.bias * c).sum(),
                0.5 * ops.square(self.fc.weight).sum() + 0 * self.norm.moving_mean.sum())


class Head(nn.Cell):
    def __init__(self, classes: int, width: int):
        super().__init__()
        self.cls_score = Part({"weight": ((classes, width), True), "bias": ((classes,), True)}, 3)


class ToyDetector(nn.Cell):
    """A detector in name only: two small layers, and losses that use every input. `classes` counts the background."""

    def __init__(self, classes: int = 4, width: int = 5):
        super().__init__()
        norm = {"gamma": ((width,), True), "moving_mean": ((width,), False)}
        self.backbone = Part({"weight": ((width, 3), True), **norm}, 2)
        self.rcnn = Head(classes, width)
        self.labels = np.array([[1, 2, 3 if classes > 3 else 1, 1]], np.int32)

    @staticmethod
    def noise_shapes(batch_size: int) -> dict:
        return {"rpn_noise": (batch_size, 6), "roi_noise": (batch_size, 4)}

    def features(self, image):
        return ops.tanh(ops.matmul(image.mean((2, 3)), self.backbone.weight.T) * self.backbone.gamma)   # (N, width)

    def construct(self, image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise):
        return self.box_losses(image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise)

    def box_losses(self, image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise):
        x = self.features(image)
        logits = ops.matmul(x, self.rcnn.cls_score.weight.T) + self.rcnn.cls_score.bias                  # (N, classes)
        sizes = (gt_boxes[..., 2] - gt_boxes[..., 0]) * gt_valid.astype(gt_boxes.dtype)
        return (ops.square(x.sum(1) - rpn_noise.mean(1)).mean(),
                ops.square(x.mean(1) - 0.01 * sizes.mean(1)).mean(),
                ops.square(logits.sum(1) - gt_labels.astype(x.dtype).sum(1)).mean(),
                ops.square(logits.mean(1) - roi_noise.mean(1)).mean() + 1e-3 * image_info.mean() * ops.square(x).mean())

    def predict(self, image, image_info):
        return self.quarters(image, image_info)

    def quarters(self, image, image_info):
        """Return four boxes per image, each a quarter of it, of classes 1, 2, 3, 1, or with two classes 1, 2, 1, 1."""
        n = image.shape[0]
        height, width = image_info[:, 0:1], image_info[:, 1:2]
        fractions = Tensor(np.array([[0, 0, .5, .5], [.5, 0, 1, .5], [0, .5, .5, 1], [.5, .5, 1, 1]], np.float32))
        boxes = fractions * ops.concat((width, height, width, height), 1).reshape(n, 1, 4)
        scores = ops.sigmoid(self.features(image)[:, :4])
        labels = ops.tile(Tensor(self.labels), (n, 1))
        return boxes, scores, labels, scores > -1


class ToyOneStage(ToyDetector):
    """The toy with RefineDet's interface, which has no noise."""

    @staticmethod
    def noise_shapes(batch_size: int) -> dict:
        return {}

    def construct(self, image, image_info, gt_boxes, gt_labels, gt_valid):
        still = ops.zeros((image.shape[0], 6))
        return self.box_losses(image, image_info, gt_boxes, gt_labels, gt_valid, still, still)


class ToyMaskDetector(ToyDetector):
    """The toy with Mask R-CNN's interface. Each mask is the left half of its box."""

    def construct(self, image, image_info, gt_boxes, gt_labels, gt_valid, gt_edges, rpn_noise, roi_noise):
        losses = self.box_losses(image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise)
        outline = ops.abs(gt_edges).mean((1, 2, 3))
        return *losses, ops.square(self.features(image).mean(1) - 0.01 * outline).mean()

    def predict(self, image, image_info):
        boxes, scores, labels, valid = self.quarters(image, image_info)
        left = Tensor((np.arange(28) < 14).astype(np.float32))
        return boxes, scores, labels, valid, ops.tile(left, (image.shape[0], 4, 28, 1))


def toy_batch(seed: int = 0, n: int = 2, g: int = 3) -> tuple:
    """Return arguments of ToyDetector: n images, g object slots."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (n, g, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(1, 20, (n, g, 2))), -1)
    valid = np.arange(g) < rng.integers(1, g + 1, (n, 1))
    arrays = (rng.standard_normal((n, 3, 8, 8)), np.tile([32, 48, .5, .5, 64, 96], (n, 1)), boxes)
    labels = (rng.integers(1, 4, (n, g)) * valid).astype(np.int32)
    noise = [rng.random(shape) for shape in ToyDetector.noise_shapes(n).values()]
    image, info, boxes, *noise = (Tensor(array.astype(np.float32)) for array in (*arrays, *noise))
    return image, info, boxes, Tensor(labels), Tensor(valid), *noise
