"""A training step around a network: losses, gradients, update.

The network is an nn.Cell: called with the columns of a training batch and what random numbers its sampling takes, it
gives the weighted losses as a tuple of scalars.
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

# Parameters of these names are norms, which weight decay leaves alone (detectron2's way).
NORM_ENDINGS = (".gamma", ".beta")
BIAS_ENDING = ".bias"
# For each parameter. A loop in a graph nests a call in a call for each, of which MindSpore 2.10 takes 1000: some 250 parameters
# where the loop decides something, and slowly (9 s for 240, this way 0.6).
EACH = ops.HyperMap()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What a step gave. Losses are means over the devices; the norm is that of the mean gradients, unscaled."""

    losses: dict[str, float]        # name -> weighted loss
    local_losses: dict[str, float]  # those of this device
    grad_norm: float
    applied: bool                   # False: not finite, the weights are as they were
    stop: bool                      # a device asked to stop


class RunState(NamedTuple):
    """What a run needs to resume."""

    tensors: dict[str, Parameter]
    values: dict[str, Any]          # what JSON can hold


class NotFiniteError(ArithmeticError):
    """A loss or the gradients' norm is not finite, and to leave out the step does not help."""


class TrainStep:
    """Losses, gradients, SGD with momentum and the average of the weights: `step(inputs, lr) -> StepResult`.

    v = momentum * v + gradient + weight_decay * weight;  weight = weight - lr * v  (PyTorch's SGD with dampening 0).
    The gradients and the update are two graphs: what is not finite is seen before it reaches a weight.
    clip_grad_norm: largest global norm of the gradients, 0 = off. ema_decay: of the averaged weights, 0 = off.
    bias_lr_factor: what the rate of biases is multiplied by; bias_weight_decay: whether they decay (Caffe: 2.0, False).
    accumulate: batches whose mean gradients make one update. It equals that of one batch of all their pictures where the
    losses divide by the same number in each: the count of pictures, or of sampled anchors and boxes as long as every picture
    has its full sample. Where they divide by counts that vary (matched anchors, masks), each batch
    weighs the same, however much it counts. Over devices there is no such difference: see ranks.shared_count.
    """

    def __init__(self, net: nn.Cell, loss_names: Sequence[str], *, momentum: float, weight_decay: float,
                 clip_grad_norm: float = 0.0, loss_scale: LossScale | None = None, ema_decay: float = 0.0, rank_size: int = 1,
                 bias_lr_factor: float = 1.0, bias_weight_decay: bool = True, accumulate: int = 1):
        self.net = net
        self.loss_names = tuple(loss_names)
        self.loss_scale = loss_scale or LossScale()
        self.clip_grad_norm, self.ema_decay, self.rank_size, self.accumulate = clip_grad_norm, ema_decay, rank_size, accumulate
        self.updates = 0  # of the averaged weights
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
        """One step on `inputs`, the network's arguments, and those of `more`. Raises NotFiniteError, weights unchanged.

        stop: this device wishes to stop; the result says whether any does, so that all stop after the same step.
        """
        if len(more) != self.accumulate - 1:
            raise ValueError(f"expected {self.accumulate} batches, got {len(more) + 1}")
        self.net.set_train()        # an evaluation may have been before
        scale = _scalar(self.loss_scale.value)
        # The forward pass moves statistics before anybody knows whether the step counts. Without a factor one that does not
        # ends the run.
        kept = [param.asnumpy().copy() for param in self.statistics] if scale.asnumpy() > 1 else []
        if self._clear and self._add:   # several batches
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
        # The same on all devices: means of the losses, and the norm of averaged gradients.
        finite = bool(np.isfinite(losses).all() and np.isfinite(norm))
        if finite:
            factor = min(1.0, self.clip_grad_norm / (norm + 1e-6)) if self.clip_grad_norm else 1.0
            self.updates += 1
            self._update(_scalar(lr), _scalar(factor / self.loss_scale.value), *grads)
            if self.averages is not None:
                # Less than ema_decay at first, so that the average does not hold on to the first weights.
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
        """(gradients, clear, add): the last two where batches are accumulated, and the first then is of what they gathered."""
        net, params, sums, share = self.net, self.params, self._sums, 1 / self.accumulate
        finish = self._build_finish()

        def forward(scale: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            # Stacked: MindSpore 2.10 fails to differentiate beside a tuple.
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
        """A function for graphs: (losses, stop, gradients) of this device -> the report, gradients averaged over the devices."""
        rank_size = self.rank_size
        square_sum = ops.L2Loss()  # sum(x**2) / 2 in one pass: 22 ms for 41M floats; square and sum take 130
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
        # 41M floats on two cores: 32 ms, with decay 50, with factor 60; ops.SGD is no faster and keeps a third state.
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
        def average(pull: Tensor) -> Tensor:  # a graph of its own: within that of the update every weight would be copied first
            EACH(ops.partial(pull_one, pull), params, averages)
            return pull

        return average

    def weights(self) -> dict[str, Parameter]:
        """name -> Parameter of the network as it is evaluated and saved: averaged weights where they are kept."""
        weights = {param.name: param for param in self.net.get_parameters()}
        if self.averages is not None:
            weights.update({param.name: average for param, average in zip(self.params, self.averages)})
        return weights

    def share_statistics(self) -> None:
        """Give those that norms learn the mean over the devices, each of which learns from its own pictures; all call it.

        They enter inference alone. As they are running means themselves, it does not matter when and how often that is done.
        """
        if self.rank_size == 1 or not self.statistics:
            return
        mine = np.concatenate([param.asnumpy().ravel() for param in self.statistics])
        told = exchange(mine.tobytes(), self.rank_size)
        mean = np.mean([np.frombuffer(item, mine.dtype) for item in told], 0, np.float64).astype(mine.dtype)
        for param, end in zip(self.statistics, np.cumsum([param.size for param in self.statistics]).tolist()):
            ops.assign(param, Tensor(mean[end - param.size:end].reshape(param.shape)))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
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

    def state(self) -> RunState:
        """Return the state of the network and of the optimiser."""
        tensors = {f"network.{param.name}": param for param in self.net.get_parameters()}
        tensors.update({param.name: param for param in (*self.momenta, *(self.averages or ()))})
        return RunState(tensors, {"loss_scale": self.loss_scale.state(), "updates": self.updates})

    def load_state(self, tensors: Mapping[str, Parameter], values: Mapping[str, Any], source: Path | str) -> None:
        """Take what `state` gave; InputError where a tensor of the network is missing, or one is of another shape.

        Weights that were frozen have no momentum in it, and without averages it has none of these: they begin here.
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
            log.warning("resume: %s has no momentum or average of some weights: %d begin anew", source, len(mine) - len(found))
        self.loss_scale.load_state(values["loss_scale"])
        self.updates = values["updates"]


def _learnt_statistics(net: nn.Cell) -> list[Parameter]:
    """The parameters that training moves without a gradient."""
    return [param for _, cell in net.cells_and_names() if getattr(cell, "learns_statistics", False)
            for param in (cell.moving_mean, cell.moving_variance)]


def _scalar(value: float) -> Tensor:
    return Tensor(value, ms.float32)


def _copy_of(param: Parameter, name: str) -> Parameter:
    return Parameter(Tensor(param.asnumpy().copy()), name=name, requires_grad=False)
