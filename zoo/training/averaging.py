"""Averages of weights: exponential (EMA) over the steps, or equal (SWA) over the last epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, update_bn

from zoo.data.batches import normalize
from zoo.training.config import SwaConfig, TrainerConfig
from zoo.training.optim import OptimConfig, rate

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class Averaging(L.Callback):
    """Keeps an average of a network's weights beside those that learn.

    The average is the callback's state, so that a run that is continued goes on with it.
    (Lightning's `WeightAveraging` would copy the module with all training images that it keeps in
    memory, and would write the average in the place of the weights that learn.)

    EMA: after each step, average = keep * average + (1 - keep) * weights, buffers such as the
    statistics of batch norms too; at step n, keep is at most (1 + n) / (10 + n), so that the first
    weights are soon forgotten (as in TensorFlow's `ExponentialMovingAverage`, `num_updates`).

    SWA (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization"):
    after each of the last epochs, the mean of the weights so far. The last epoch's ends with a pass
    over the training images that computes the statistics of batch norms for the mean; until then it
    is the learning weights that are scored.
    """

    def __init__(self, network: nn.Module, config: TrainerConfig) -> None:
        self._network, self._config = network, config
        self._average: AveragedModel | None = None
        self._read: dict[str, Any] | None = None
        self._step, self._is_settled = 0, False

    @property
    def best_network(self) -> nn.Module:
        """What is scored and written: the average where there is a usable one."""
        if self._config.ema is None and not self._is_settled:
            return self._network
        return self._opened().module

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        """Let the exponential average follow a step."""
        # Steps that accumulate gradients leave the weights as they are.
        if self._config.ema is not None and trainer.global_step > self._step:
            self._step = trainer.global_step
            self._opened().update_parameters(self._network)

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        """Let the equal average take in an epoch."""
        last = self._config.last_average
        if last is None:
            return
        if trainer.current_epoch >= last.first_epoch(self._config.epochs):
            self._opened().update_parameters(self._network)
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._settle(trainer, module)

    def _settle(self, trainer: L.Trainer, module: Any) -> None:
        """Compute the statistics of batch norms anew; each process does so on its share."""
        average = self._opened().module
        with trainer.precision_plugin.forward_context():
            settle_batch_norms(average, self._shown(trainer, module))
        if trainer.world_size > 1:
            for buffer in average.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(trainer.strategy.reduce(buffer, reduce_op="mean"))
        self._is_settled = True

    def _shown(self, trainer: L.Trainer, module: Any) -> Iterator[Tensors]:
        for images, _, *rows in module.loader(trainer.current_epoch):
            images, *rows = (t.to(module.device, non_blocking=True) for t in (images, *rows))
            yield normalize(images), *rows

    def _opened(self) -> AveragedModel:
        """Return the average; made late, when Lightning has moved the network to its device."""
        if self._average is None:
            self._average = AveragedModel(
                self._network, multi_avg_fn=self._mix, use_buffers=self._config.ema is not None
            )
            self._average.requires_grad_(False)
            if self._read is not None:
                self._average.load_state_dict(self._read)
                self._read = None
        return self._average

    def _mix(self, averages: Tensors, weights: Tensors, count: torch.Tensor | int) -> None:
        if not averages[0].is_floating_point():
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
            return
        # The callback's own counter is on the CPU: reading the given one would wait for the device.
        keep = self._keep(int(self._opened().n_averaged))
        with torch.no_grad():
            torch._foreach_lerp_(list(averages), list(weights), 1 - keep)

    def _keep(self, count: int) -> float:
        if self._config.ema is None:
            return count / (count + 1)
        return min(self._config.ema, (1 + count) / (10 + count))

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and how far it has come; plain values and tensors."""
        average = self._read if self._average is None else self._average.state_dict()
        return {"average": average, "step": self._step, "is_settled": self._is_settled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._read, self._step = state_dict["average"], state_dict["step"]
        self._is_settled, self._average = state_dict["is_settled"], None


def settle_batch_norms(network: nn.Module, shown: Iterable[Tensors]) -> None:
    """Compute the statistics of batch norms anew, as the mean over batches.

    Args:
        network: its mode is as before afterwards.
        shown: of each batch what the network takes: images, float (N, c, h, w), and what is known
            of them where it is shown that.
    """
    # PyTorch's function gives a network the first part of a batch alone.
    together = _TakesTogether(network).train(network.training)
    update_bn(((tensors,) for tensors in shown), together)


class _TakesTogether(nn.Module):
    """A network that takes its arguments as one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tensors: Tensors) -> Any:
        return self.network(*tensors)


def settle_rate(
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    swa: SwaConfig,
    epochs: int,
    steps_per_epoch: int,
) -> LambdaLR:
    """Return the plain schedule up to the first epoch that is averaged, then a constant rate.

    The rate moves to the constant one along half a cosine within `swa.anneal` epochs.
    """
    total, start = epochs * steps_per_epoch, swa.first_epoch(epochs) * steps_per_epoch
    goal, ramp = (swa.lr or 0.0) / optim.lr, swa.anneal * steps_per_epoch

    def factor(step: int) -> float:
        plain = rate(min(step, start), total, optim)
        if step < start:
            return plain
        way = min(1.0, (step - start + 1) / ramp) if ramp else 1.0
        return goal + (plain - goal) * (1 + math.cos(math.pi * way)) / 2

    # A function: a checkpoint leaves it out, and holds plain values alone.
    return LambdaLR(optimizer, factor)
