# Same as faster_rcnn/src/model_utils/training/step.py
"""A training step of a network: losses, gradients, update.

The network is an nn.Cell that takes the columns of a training batch and the noise for its sampling, and returns the weighted losses
as a tuple of scalars.
"""
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ..weights.loading import check_shapes
from .precision import LossScale
from .ranks import exchange

# Suffixes of norm parameters, which are exempt from weight decay, as in detectron2.
NORM_ENDINGS = (".gamma", ".beta")
BIAS_ENDING = ".bias"
# Maps a function over the parameters. A loop in a graph nests one call per parameter, and MindSpore 2.10 allows 1000 nested calls:
# some 250 parameters if the loop has a condition. A loop also compiles slowly (9 s for 240 parameters; this takes 0.6 s).
EACH = ops.HyperMap()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """The result of a step. Losses are means over the devices; the norm is that of the mean gradients, unscaled."""

    losses: dict[str, float]        # name -> weighted loss
    local_losses: dict[str, float]  # the losses of this device
    grad_norm: float
    applied: bool                   # False: not finite, so the weights are unchanged
    stop: bool                      # a device requested to stop


class RunState(NamedTuple):
    """Everything a run needs to resume."""

    tensors: dict[str, Parameter]
    values: dict[str, Any]          # JSON-serialisable


class NotFiniteError(ArithmeticError):
    """A loss or the gradient norm is not finite, and skipping the step does not help."""


class TrainStep:
    """Losses, gradients, SGD with momentum and averaged weights: `step(inputs, lr) -> StepResult`.

    v = momentum * v + gradient + weight_decay * weight;  weight = weight - lr * v  (PyTorch's SGD with dampening 0).
    Gradients and update are two graphs, so non-finite values are detected before they reach a weight.

    Args:
        clip_grad_norm: maximum global norm of the gradients, 0 = off. ema_decay: decay of the averaged weights, 0 = off.
        bias_lr_factor: factor on the learning rate of biases; bias_weight_decay: whether biases decay (Caffe: 2.0, False).
        accumulate: batches whose mean gradient makes one update. It equals the update of one large batch if each batch divides its
            losses by the same number, such as the image count, or the sampled anchors if every image has a full sample. Losses
            divided by varying counts (matched anchors, masks) weight each batch equally. Devices have no such difference, see
            ranks.shared_count.
    """

    def __init__(self, net: nn.Cell, loss_names: Sequence[str], *, momentum: float, weight_decay: float,
                 clip_grad_norm: float = 0.0, loss_scale: LossScale | None = None, ema_decay: float = 0.0, rank_size: int = 1,
                 bias_lr_factor: float = 1.0, bias_weight_decay: bool = True, accumulate: int = 1):
        self.net = net
        self.loss_names = tuple(loss_names)
        self.loss_scale = loss_scale or LossScale()
        self.clip_grad_norm, self.ema_decay, self.rank_size, self.accumulate = clip_grad_norm, ema_decay, rank_size, accumulate
        self.updates = 0  # number of updates, for the averaged weights
        self.params = ParameterTuple(net.trainable_params())
        self.momenta = self.params.clone("momentum", init="zeros")
        self.averages: ParameterTuple | None = None
        if ema_decay:
            self.averages = ParameterTuple([_copy_of(param, f"ema.{param.name}") for param in self.params])
        self._unit_factor = not clip_grad_norm and not self.loss_scale.dynamic and self.loss_scale.value == 1
        self.statistics = _learnt_statistics(net)
        self._sums = self.params.clone("sum", init="zeros") if accumulate > 1 else None
        self._gradients, self._clear, self._add = self._build_gradients()
        still = NORM_ENDINGS if bias_weight_decay else (*NORM_ENDINGS, BIAS_ENDING)
        decays = tuple(0.0 if param.name.endswith(still) else weight_decay for param in self.params)
        factors = tuple(bias_lr_factor if param.name.endswith(BIAS_ENDING) else 1.0 for param in self.params)
        self._update = self._build_update(momentum, decays, factors)
        self._average = self._build_average()

    def __call__(self, inputs: Sequence[Tensor], lr: float, stop: bool = False,
                 more: Sequence[Sequence[Tensor]] = ()) -> StepResult:
        """Update on `inputs`, the network's arguments, and those in `more`; NotFiniteError leaves the weights unchanged.

        stop: this device requests to stop. The result says whether any device does, so that all stop after the same step.
        """
        if len(more) != self.accumulate - 1:
            raise ValueError(f"expected {self.accumulate} batches, got {len(more) + 1}")
        self.net.set_train()        # an evaluation may have changed the mode
        scale = _scalar(self.loss_scale.value)
        # The forward pass updates statistics before it is known whether the step is finite. With loss scale 1, a non-finite step
        # ends the run, so they need not be restored.
        kept = [param.asnumpy().copy() for param in self.statistics] if scale.asnumpy() > 1 else []
        if self._clear and self._add:   # accumulate several batches
            self._clear(scale)
            losses = self._add(scale, *inputs)
            for others in more:
                losses = losses + self._add(scale, *others)
            report, grads = self._gradients(losses, _scalar(stop))
        else:
            report, grads = self._gradients(scale, _scalar(stop), *inputs)
        count = len(self.loss_names)
        report = report.asnumpy()
        losses, local_losses, (norm, stops) = report[:count], report[count:2 * count], report[2 * count:]
        norm = float(norm) / self.loss_scale.value
        # Equal on all devices: mean losses, and the norm of the averaged gradients.
        finite = bool(np.isfinite(losses).all() and np.isfinite(norm))
        if finite:
            factor = min(1.0, self.clip_grad_norm / (norm + 1e-6)) if self.clip_grad_norm else 1.0
            self.updates += 1
            self._update(_scalar(lr), _scalar(factor / self.loss_scale.value), *grads)
            if self.averages is not None:
                # The decay grows up to ema_decay, so that the average does not stay near the initial weights.
                self._average(_scalar(1 - min(self.ema_decay, (1 + self.updates) / (10 + self.updates))))
        else:
            for param, array in zip(self.statistics, kept):
                ops.assign(param, Tensor(array))
        result = StepResult(self._named(losses), self._named(local_losses), norm, finite, stops > 0)
        if not self.loss_scale.update(finite):
            terms = {**result.local_losses, "grad_norm": norm}
            raise NotFiniteError(", ".join(f"{name}: {value}" for name, value in terms.items()))
        return result

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(self.loss_names, values)}

    def _build_gradients(self) -> tuple[Callable, Callable | None, Callable | None]:
        """Return (gradients, clear, add). With accumulation, `gradients` finishes what `add` summed; else the others are None."""
        net, params, sums, share = self.net, self.params, self._sums, 1 / self.accumulate
        finish = self._build_finish()

        def forward(scale: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            # Stacked, since MindSpore 2.10 fails to differentiate if the auxiliary output is a tuple.
            losses = ops.stack(net(*inputs))
            return losses.sum() * scale, losses

        value_and_grad = ms.value_and_grad(forward, None, params, has_aux=True)

        @ms.jit
        def gradients(scale: Tensor, stop: Tensor, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            (_, losses), grads = value_and_grad(scale, *inputs)
            return finish(losses, stop, grads)

        if sums is None:
            return gradients, None, None

        def clear_one(total: Tensor) -> Tensor:
            return ops.assign(total, ops.zeros_like(total))

        def share_one(total: Tensor) -> Tensor:
            return total * share

        @ms.jit
        def clear(scale: Tensor) -> Tensor:     # without a result, MindSpore puts a call of Python into the graph
            EACH(clear_one, sums)
            return scale

        @ms.jit
        def add(scale: Tensor, *inputs: Tensor) -> Tensor:
            (_, losses), grads = value_and_grad(scale, *inputs)
            EACH(ops.assign_add, sums, grads)
            return losses

        @ms.jit
        def gathered(losses: Tensor, stop: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            return finish(losses * share, stop, EACH(share_one, sums))

        return gathered, clear, add

    def _build_finish(self) -> Callable:
        """Return a function for graphs: (losses, stop, gradients) of this device -> (report, gradients averaged over devices)."""
        rank_size = self.rank_size
        square_sum = ops.L2Loss()  # sum(x**2) / 2 in one pass: 22 ms for 41M floats, against 130 ms for square and sum
        reducer = nn.DistributedGradReducer(self.params, mean=True, degree=rank_size) if rank_size > 1 else None
        all_reduce: Any = ops.AllReduce() if rank_size > 1 else None

        def finish(losses: Tensor, stop: Tensor, grads: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            means = losses
            if reducer is not None:
                grads = reducer(grads)
                means = all_reduce(losses) / rank_size
                stop = all_reduce(stop)
            total = ops.addn(EACH(square_sum, grads))
            return ops.concat((means, losses, ops.stack((ops.sqrt(2 * total), stop)))), grads

        return finish

    def _build_update(self, momentum: float, decays: tuple[float, ...], lr_factors: tuple[float, ...]) -> Callable:
        params, momenta, unit_factor = self.params, self.momenta, self._unit_factor
        # For 41M floats on two cores: 32 ms, with decay 50, with a factor 60. ops.SGD is no faster and keeps a third state.
        apply_momentum, rate = ops.ApplyMomentum(), _scalar(momentum)

        def update_one(lr: Tensor, factor: Tensor, param: Parameter, velocity: Parameter, grad: Tensor, decay: float,
                       lr_factor: float) -> Tensor:
            if not unit_factor:
                grad = grad * factor
            if decay > 0:
                grad = grad + decay * param
            own = lr if lr_factor == 1 else lr * lr_factor
            return apply_momentum(param, velocity, own, grad, rate)

        @ms.jit
        def update(lr: Tensor, factor: Tensor, *grads: Tensor) -> Tensor:
            EACH(ops.partial(update_one, lr, factor), params, momenta, grads, decays, lr_factors)
            return lr

        return update

    def _build_average(self) -> Callable:
        params, averages = self.params, self.averages

        def pull_one(pull: Tensor, param: Parameter, average: Parameter) -> Tensor:
            return ops.assign(average, average + (param - average) * pull)

        @ms.jit
        def average(pull: Tensor) -> Tensor:  # a separate graph: within the update's graph, every weight would be copied first
            EACH(ops.partial(pull_one, pull), params, averages)
            return pull

        return average

    def weights(self) -> dict[str, Parameter]:
        """Return name -> Parameter of the network to evaluate and save, with averaged weights if they are kept."""
        weights = {param.name: param for param in self.net.get_parameters()}
        if self.averages is not None:
            weights.update({param.name: average for param, average in zip(self.params, self.averages)})
        return weights

    def share_statistics(self) -> None:
        """Average the norms' learnt statistics over the devices, each of which sees only its own images. All ranks must call it.

        Only inference uses the statistics. Since they are running means, it does not matter when and how often they are averaged.
        """
        if self.rank_size == 1 or not self.statistics:
            return
        mine = np.concatenate([param.asnumpy().ravel() for param in self.statistics])
        parts = exchange(mine.tobytes(), self.rank_size)
        mean = np.mean([np.frombuffer(item, mine.dtype) for item in parts], 0, np.float64).astype(mine.dtype)
        for param, end in zip(self.statistics, np.cumsum([param.size for param in self.statistics]).tolist()):
            ops.assign(param, Tensor(mean[end - param.size:end].reshape(param.shape)))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the averaged weights, if they are kept, within a `with` block.

        Assigned in place: `set_data` would move a parameter to other memory, and a compiled graph of MindSpore 2.10 keeps reading
        the old one.
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

    def state(self) -> RunState:
        """Return the state of the network and of the optimizer."""
        tensors = {f"network.{param.name}": param for param in self.net.get_parameters()}
        tensors.update({param.name: param for param in (*self.momenta, *(self.averages or ()))})
        return RunState(tensors, {"loss_scale": self.loss_scale.state(), "updates": self.updates})

    def load_state(self, tensors: Mapping[str, Parameter], values: Mapping[str, Any], source: Path | str) -> None:
        """Restore what `state` returned; InputError if a tensor of the network is missing or has another shape.

        Momentum of weights that were frozen, and averages that were not kept, are missing in the state and initialised here.
        """
        mine, _ = self.state()
        found = {name: param for name, param in mine.items() if name in tensors or name.startswith("network.")}
        check_shapes(found, tensors, source)
        for name, param in found.items():
            ops.assign(param, Tensor(tensors[name].asnumpy()))          # in place, as in `averaged`
        for param, average in zip(self.params, self.averages or ()):
            if average.name not in tensors:
                ops.assign(average, Tensor(param.asnumpy().copy()))
        if len(found) < len(mine):
            log.warning("resume: %s has no momentum or average of some weights: %d are initialised", source, len(mine) - len(found))
        self.loss_scale.load_state(values["loss_scale"])
        self.updates = values["updates"]


def _learnt_statistics(net: nn.Cell) -> list[Parameter]:
    """Return the parameters that training updates without a gradient."""
    return [param for _, cell in net.cells_and_names() if getattr(cell, "learns_statistics", False)
            for param in (cell.moving_mean, cell.moving_variance)]


def _scalar(value: float) -> Tensor:
    return Tensor(value, ms.float32)


def _copy_of(param: Parameter, name: str) -> Parameter:
    return Parameter(Tensor(param.asnumpy().copy()), name=name, requires_grad=False)
