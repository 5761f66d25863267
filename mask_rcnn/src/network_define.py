# Same as faster_rcnn/src/network_define.py
"""A training step around a network, the network as inference calls it, and weights out of a checkpoint.

The network is an nn.Cell: called with the columns of a training batch and what random numbers its sampling takes, it
gives the weighted losses as a tuple of scalars; `net.predict(image, image_info)` gives the detections.
"""
import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from .checkpoint_io.writer import UNUSED
from .model_utils.config import InputError
from .outputs import CLASS_LAYERS
from .precision import LossScale, mixed_precision

__all__ = ["InferenceNet", "LossScale", "NotFiniteError", "StepResult", "TrainStep", "check_shapes",
           "load_checkpoint_into", "load_pretrained", "mixed_precision", "read_weights", "same_on_all_ranks"]

# Parameters of these names are norms, which weight decay leaves alone (detectron2's way).
NORM_ENDINGS = (".gamma", ".beta")
BIAS_ENDING = ".bias"
# What MindSpore's optimisers add to a checkpoint.
OPTIMISER_NAMES = ("learning_rate", "momentum", "global_step", "scale_sense", "current_iterator_step",
                   "last_overflow_iterator_step")
OPTIMISER_PREFIXES = ("moments.", "accum.", "stat.", "momentum.")
# A checkpoint with this entry is the state of a run.
STATE_KEY = "run_state"
BACKBONE = "backbone."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What a step gave. Losses are means over the devices; the norm is that of the mean gradients, unscaled."""

    losses: dict        # name -> weighted loss
    local_losses: dict  # those of this device
    grad_norm: float
    applied: bool       # False: not finite, the weights are as they were
    stop: bool          # a device asked to stop


class NotFiniteError(ArithmeticError):
    """A loss or the gradients' norm is not finite, and no loss scale can help it."""


class TrainStep:
    """Losses, gradients, SGD with momentum and the average of the weights: `step(inputs, lr) -> StepResult`.

    v = momentum * v + gradient + weight_decay * weight;  weight = weight - lr * v  (PyTorch's SGD with dampening 0).
    The gradients and the update are two graphs: what is not finite is seen before it reaches a weight.
    clip_grad_norm: largest global norm of the gradients, 0 = off. ema_decay: of the averaged weights, 0 = off.
    bias_lr_factor: what the rate of biases is multiplied by; bias_weight_decay: whether they decay (Caffe: 2.0, False).
    """

    def __init__(self, net: nn.Cell, loss_names, *, momentum: float, weight_decay: float, clip_grad_norm: float = 0.0,
                 loss_scale: LossScale = None, ema_decay: float = 0.0, rank_size: int = 1, bias_lr_factor: float = 1.0,
                 bias_weight_decay: bool = True):
        self.net = net
        self.loss_names = tuple(loss_names)
        self.loss_scale = loss_scale or LossScale()
        self.clip_grad_norm, self.ema_decay, self.rank_size = clip_grad_norm, ema_decay, rank_size
        self.updates = 0  # of the averaged weights
        self.params = ParameterTuple(net.trainable_params())
        self.momenta = self.params.clone("momentum", init="zeros")
        self.averages = None
        if ema_decay:
            self.averages = ParameterTuple([_copy_of(param, f"ema.{param.name}") for param in self.params])
        self._unit_factor = not clip_grad_norm and not self.loss_scale.dynamic and self.loss_scale.value == 1
        self._gradients = self._build_gradients()
        still = NORM_ENDINGS if bias_weight_decay else (*NORM_ENDINGS, BIAS_ENDING)
        decays = tuple(0.0 if param.name.endswith(still) else weight_decay for param in self.params)
        factors = tuple(bias_lr_factor if param.name.endswith(BIAS_ENDING) else 1.0 for param in self.params)
        self._update = self._build_update(momentum, decays, factors)
        self._average = self._build_average()

    def __call__(self, inputs, lr: float, stop: bool = False) -> StepResult:
        """One step on `inputs`, the network's arguments. Raises NotFiniteError, weights unchanged.

        stop: this device wishes to stop; the result says whether any does, so that all stop after the same step.
        """
        self.net.set_train()        # an evaluation may have been before
        report, grads = self._gradients(_scalar(self.loss_scale.value), _scalar(stop), *inputs)
        count = len(self.loss_names)
        report = report.asnumpy()
        losses, local_losses, (norm, stops) = report[:count], report[count:2 * count], report[2 * count:]
        norm = float(norm) / self.loss_scale.value
        # The same on all devices: means of the losses, and the norm of averaged gradients.
        finite = bool(np.isfinite(losses).all() and np.isfinite(norm))
        if finite:
            factor = min(1.0, self.clip_grad_norm / (norm + 1e-6)) if self.clip_grad_norm else 1.0
            self.updates += 1
            self._update(_scalar(lr), _scalar(factor / self.loss_scale.value), *grads)
            if self.averages is not None:
                # Less than ema_decay at first, so that the average does not hold on to the first weights.
                self._average(_scalar(1 - min(self.ema_decay, (1 + self.updates) / (10 + self.updates))))
        result = StepResult(self._named(losses), self._named(local_losses), norm, finite, stops > 0)
        if not self.loss_scale.update(finite):
            terms = {**result.local_losses, "grad_norm": norm}
            raise NotFiniteError(", ".join(f"{name}: {value}" for name, value in terms.items()))
        return result

    def _named(self, values) -> dict:
        return {name: float(value) for name, value in zip(self.loss_names, values)}

    def _build_gradients(self):
        net, rank_size, params = self.net, self.rank_size, self.params
        square_sum = ops.L2Loss()  # sum(x**2) / 2 in one pass: 22 ms for 41M floats; square and sum take 130
        each = ops.HyperMap()      # a loop over parameters nests calls: of some 250 the compiler takes no more
        reducer = nn.DistributedGradReducer(params, mean=True, degree=rank_size) if rank_size > 1 else None
        all_reduce = ops.AllReduce() if rank_size > 1 else None

        def forward(scale, *inputs):
            # Stacked: MindSpore 2.10 fails to differentiate beside a tuple.
            losses = ops.stack(net(*inputs))
            return losses.sum() * scale, losses

        value_and_grad = ms.value_and_grad(forward, None, params, has_aux=True)

        @ms.jit
        def gradients(scale, stop, *inputs):
            (_, losses), grads = value_and_grad(scale, *inputs)
            means = losses
            if reducer is not None:
                grads = reducer(grads)
                means = all_reduce(losses) / rank_size
                stop = all_reduce(stop)
            total = ops.addn(each(square_sum, grads))
            return ops.concat((means, losses, ops.stack((ops.sqrt(2 * total), stop)))), grads

        return gradients

    def _build_update(self, momentum, decays, lr_factors):
        params, momenta, unit_factor = self.params, self.momenta, self._unit_factor
        # 41M floats on two cores: 32 ms, with decay 50, with factor 60; ops.SGD is no faster and keeps a third state.
        apply_momentum, rate, each = ops.ApplyMomentum(), _scalar(momentum), ops.HyperMap()

        def update_one(lr, factor, param, velocity, grad, decay, lr_factor):
            if not unit_factor:
                grad = grad * factor
            if decay > 0:
                grad = grad + decay * param
            own = lr if lr_factor == 1 else lr * lr_factor
            return apply_momentum(param, velocity, own, grad, rate)

        @ms.jit
        def update(lr, factor, *grads):
            each(ops.partial(update_one, lr, factor), params, momenta, grads, decays, lr_factors)
            return lr

        return update

    def _build_average(self):
        params, averages, each = self.params, self.averages, ops.HyperMap()

        def pull_one(pull, param, average):
            return ops.assign(average, average + (param - average) * pull)

        @ms.jit
        def average(pull):  # a graph of its own: within that of the update every weight would be copied first
            each(ops.partial(pull_one, pull), params, averages)
            return pull

        return average

    def weights(self) -> dict:
        """name -> Parameter of the network as it is evaluated and saved: averaged weights where they are kept."""
        weights = {param.name: param for param in self.net.get_parameters()}
        if self.averages is not None:
            weights.update({param.name: average for param, average in zip(self.params, self.averages)})
        return weights

    @contextlib.contextmanager
    def averaged(self):
        """Within, the network has the averaged weights, where they are kept.

        In place: `set_data` gives a parameter other memory, and in MindSpore 2.10 a compiled graph goes on reading the old.
        """
        if self.averages is None:
            yield
            return
        kept = [param.asnumpy().copy() for param in self.params]
        try:
            for param, average in zip(self.params, self.averages):
                ops.assign(param, Tensor(average.asnumpy().copy()))
            yield
        finally:
            for param, array in zip(self.params, kept):
                ops.assign(param, Tensor(array))

    def state(self) -> tuple:
        """(name -> Parameter, plain values): all that a run needs to go on."""
        tensors = {f"network.{param.name}": param for param in self.net.get_parameters()}
        tensors.update({param.name: param for param in (*self.momenta, *(self.averages or ()))})
        return tensors, {"loss_scale": self.loss_scale.state(), "updates": self.updates}

    def load_state(self, tensors: dict, values: dict, source) -> None:
        """Take what `state` gave; InputError where a tensor is missing or of another shape."""
        mine, _ = self.state()
        check_shapes(mine, tensors, source)
        for name, param in mine.items():
            ops.assign(param, Tensor(tensors[name].asnumpy()))          # in place, as in `averaged`
        self.loss_scale.load_state(values["loss_scale"])
        self.updates = values["updates"]


def _scalar(value) -> Tensor:
    return Tensor(value, ms.float32)


def _copy_of(param: Parameter, name: str) -> Parameter:
    return Parameter(Tensor(param.asnumpy().copy()), name=name, requires_grad=False)


def same_on_all_ranks(net: nn.Cell, rank_size: int) -> None:
    """Set every parameter to its mean over the devices, so that all start from the same weights."""
    if rank_size > 1:
        all_reduce = ops.AllReduce()
        for param in net.get_parameters():
            param.set_data(all_reduce(param.value()) / rank_size)


class InferenceNet(nn.Cell):
    """The network with `predict` as its call: (image, image_info) -> detections, fixed in number, and which are valid."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.net = net

    def construct(self, image, image_info):
        return self.net.predict(image, image_info)


def read_weights(path) -> dict:
    """name -> Parameter of a MindSpore checkpoint, without what an optimiser left in it; InputError if it is none."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    if path.suffix != ".ckpt":
        raise InputError(f"{path}: not a MindSpore checkpoint (.ckpt): convert it with "
                         f"python -m src.convert_checkpoint --ckpt_file={path}")
    try:
        content = ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: not a MindSpore checkpoint, or a damaged one") from error
    if STATE_KEY in content:
        raise InputError(f"{path}: the state of a run, for --resume; the weights are in last.ckpt beside it")
    return {name: value for name, value in content.items()
            if isinstance(value, Parameter) and name not in OPTIMISER_NAMES and not name.startswith((*OPTIMISER_PREFIXES, UNUSED))}


def load_checkpoint_into(net: nn.Cell, path) -> None:
    """Fill a network for evaluation, export or inference.

    InputError unless the checkpoint holds all of its parameters, in its shapes, and no others.
    """
    found = read_weights(path)
    wanted = {param.name: param for param in net.get_parameters()}
    check_shapes(wanted, found, path)
    strange = [name for name in found if name not in wanted]
    if strange:
        raise InputError(f"{path}: holds {_some(strange)}, which the config's network lacks: is it another backbone?")
    for name, param in wanted.items():
        _fill(param, found[name])


def load_pretrained(net: nn.Cell, path) -> list:
    """Fill what fits of a backbone or a whole detector, to start training from; the names of what was not filled.

    Heads of another shape (another number of classes) keep their new weights, with a warning; a backbone of another
    shape is an InputError.
    """
    found = read_weights(path)
    wanted = {param.name: param for param in net.get_parameters()}
    differing = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    backbone = {name: wanted[name] for name in differing if name.startswith(BACKBONE)}
    check_shapes(backbone, found, path)
    filled = [name for name in wanted if name in found and name not in differing]
    if not filled:
        raise InputError(f"{path}: none of its {len(found)} parameters is one of the network's ({_some(found)}): "
                         "convert it with python -m src.convert_checkpoint")
    _check_norms(wanted, set(filled), path)
    for name in filled:
        _fill(wanted[name], found[name])
    missing = [name for name in wanted if name not in filled]
    log.info("pre_trained: %d of %d parameters from %s", len(filled), len(wanted), path)
    for name in differing:
        log.warning("pre_trained: %s is %s in %s, not %s: initialised anew", name, found[name].shape, path,
                    wanted[name].shape)
    absent = [name for name in missing if name not in differing]
    if absent:
        log.info("pre_trained: initialised anew, not in the file: %s", _some(absent))
    unused = [name for name in found if name not in wanted]
    if unused:
        log.warning("pre_trained: not used, the network has no such parameters: %s", _some(unused))
    return missing


def _check_norms(wanted: dict, filled: set, path) -> None:
    """A trained convolution with a fresh norm is worth nothing: files of other names would end so, unconverted."""
    for name in sorted(filled):
        norm = name[:-len("weight")] + "moving_variance"
        if name.endswith(".weight") and norm in wanted and norm not in filled:
            raise InputError(f"{path}: has {name} and not its norm, {norm}: convert it with python -m src.convert_checkpoint")


def check_shapes(wanted: dict, found: dict, source) -> None:
    """InputError that names the first parameter of `wanted` which `found` lacks or has in another shape."""
    for name, param in wanted.items():
        if name not in found:
            missing = [other for other in wanted if other not in found]
            raise InputError(f"{source}: lacks {_some(missing)}: is it a checkpoint of this model and backbone?")
        shape = tuple(found[name].shape)
        if shape != tuple(param.shape):
            # The class layers have the number of classes in their first axis alone.
            classes = shape[1:] == tuple(param.shape[1:]) and name.startswith(CLASS_LAYERS)
            asking = "the config's num_classes" if classes else "the config"
            raise InputError(f"{name} is {shape} in {source}, {asking} asks for {tuple(param.shape)}")


def _fill(param: Parameter, value: Parameter) -> None:
    param.set_data(Tensor(value.asnumpy().astype(ms.dtype_to_nptype(param.dtype))))


def _some(names, most: int = 3) -> str:
    """The first of many names."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
