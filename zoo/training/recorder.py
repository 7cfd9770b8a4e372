"""What happens at the end of epochs: scores, weights, a place to continue from, an early end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from converters.files.atomic import unfinished
from zoo.contract import DivergedError, TrainJob
from zoo.data.cases import CaseReader
from zoo.data.training_set import Batch
from zoo.inference.predict import predict_semantic
from zoo.inference.setting import Setting
from zoo.metadata.network import tallied
from zoo.run_files import checkpoints
from zoo.run_files.metrics import MetricsFile
from zoo.training.averaging import Averaging
from zoo.training.module import NetworkModule
from zoo.training.validation import Predict, count_cases, dice_of, mean_iou

# Reading the loss waits for the device, so it is not done at every step.
STEPS_BETWEEN_NOTES = 10
# Steps in a row whose numbers overflow float16: they are skipped, and the gradients scaled down.
SKIPPED_AT_MOST = 20


class Recorder(L.Callback):
    """At the end of epochs: score, write `metrics.csv` and weights, and keep the place.

    The score is the mean Dice of images and classes; where a pixel has one label it is the mean IoU
    of all images together. After `patience` scores in a row that are not better than the best
    before them, the run ends.
    """

    def __init__(
        self,
        job: TrainJob,
        cases: CaseReader,
        setting: Setting,
        averaging: Averaging | None = None,
        predict: Predict = predict_semantic,
        further: Sequence[str] = (),
    ) -> None:
        """Prepare to record.

        Args:
            job: what is trained for.
            cases: what to score on.
            setting: how to predict them.
            averaging: whose average is scored and written instead of the weights that learn; comes
                before this callback.
            predict: how the network predicts.
            further: names of scores of what the network predicts beside masks.
        """
        self._job, self._cases, self._setting = job, cases, setting
        self._averaging, self._predict = averaging, predict
        self._score_name = "val_miou" if job.labels.exclusive else "val_dice"
        scores = dict.fromkeys(("val_dice", self._score_name))
        first = ("epoch", "step", "seconds", "train_loss", "lr", *scores)
        columns = (*first, *further, *job.labels.names)
        self._metrics = MetricsFile(job.out / "metrics.csv", columns)
        self._further: dict[str, float | None] = dict.fromkeys(further)
        self._losses: list[torch.Tensor] = []
        self._checked, self._skipped = 0, 0
        self._note, self._rate = "", 0.0
        self._started, self._before = time.monotonic(), 0.0
        # Every process has them, unlike the file: all have to end together.
        self._best, self._waited = -1.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return how long no score has been better."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._best, self._waited = state_dict["best"], state_dict["waited"]

    def has_waited(self, module: NetworkModule) -> bool:
        """Tell whether the run has waited long enough for a better score."""
        patience = module.config.patience
        return 0 < patience <= self._waited

    def on_train_start(self, trainer: L.Trainer, module: NetworkModule) -> None:
        """Forget what was written after the checkpoint from which training continues.

        Raises:
            ValueError: that checkpoint's weights are no numbers.
        """
        if trainer.current_epoch:
            resume = self._job.out / checkpoints.RESUME
            checkpoints.check_finite(self.network(module).state_dict(), resume)
        self._metrics.keep_until(trainer.current_epoch)
        self._started, self._before = time.monotonic(), self._metrics.last("seconds")
        if self._best < 0:
            # A checkpoint of an older release does not say.
            self._best = self._metrics.best(self._score_name)
        # The process ended between its last checkpoint and the run's last weights.
        trainer.should_stop = trainer.should_stop or self.has_waited(module)

    def on_train_epoch_start(self, trainer: L.Trainer, module: NetworkModule) -> None:
        """Seed what is random in the network by the epoch, for a run that is continued."""
        seed = [module.config.seed, trainer.current_epoch, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self._losses, self._checked = [], 0

    def on_train_batch_start(
        self, trainer: L.Trainer, module: NetworkModule, batch: Batch, number: int
    ) -> None:
        """Note the learning rate before the schedule moves on."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, module: NetworkModule, outputs: Any, batch: Batch, number: int
    ) -> None:
        """Move the progress bar.

        Raises:
            DivergedError: the loss is NaN or infinite, in any process: all find out together.
        """
        # Lightning has divided it by the number of batches of a step.
        self._losses.append(outputs["loss"].detach() * module.config.accumulate)
        if len(self._losses) % STEPS_BETWEEN_NOTES == 0:
            self._check_losses(trainer)
        if not trainer.is_global_zero:
            return
        per_epoch = int(trainer.num_training_batches)
        if number % STEPS_BETWEEN_NOTES == 0:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            name = self._score_name
            score = f" {name[4:]} {self._metrics.last(name):.4f}" if self._metrics.rows else ""
            self._note = f"{epoch} loss {float(self._losses[-1]):.4f}{score}"
        done = trainer.current_epoch * per_epoch + number + 1
        self._job.progress(done, per_epoch * (trainer.max_epochs or 0), self._note)

    def on_train_epoch_end(self, trainer: L.Trainer, module: NetworkModule) -> None:
        """Score where it is due, then write the checkpoint to continue from.

        Raises:
            DivergedError: the loss or weights are NaN or infinite; nothing is written then.
        """
        epoch = trainer.current_epoch + 1
        loss = self._mean_loss(trainer)
        for network in {module.network, self.network(module)}:
            if name := checkpoints.first_broken(network.state_dict()):
                raise _diverged(epoch, f"'{name}' holds NaN or infinite numbers")
        is_last = epoch == trainer.max_epochs
        if is_last or epoch % module.config.validate_every == 0:
            self._record(trainer, module, epoch, loss)
            if self.has_waited(module):
                trainer.should_stop = is_last = True
        if is_last or epoch % module.config.checkpoint_every == 0:
            self._save(trainer)

    def _mean_loss(self, trainer: L.Trainer) -> float:
        """The epoch's mean loss over all processes; without steps that float16 has skipped."""
        self._check_losses(trainer)
        losses = torch.stack(self._losses)
        mean = losses[losses.isfinite()].mean()
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        if not math.isfinite(loss):
            raise _diverged(trainer.current_epoch + 1, f"the loss is {loss}")
        return loss

    def _check_losses(self, trainer: L.Trainer) -> None:
        """Look at the losses since the last look, of all processes: each must be a number.

        In float16 a step whose numbers overflow is skipped; a few of these are no divergence.
        """
        new, self._checked = self._losses[self._checked :], len(self._losses)
        if not new:
            return
        values = torch.stack(new).float()
        bad = values[~values.isfinite()]
        # What is added up is the same in every process: all go on, or all end in the same way.
        told = torch.stack([bad.sum(), values.new_tensor(len(bad))])
        wrong, count = trainer.strategy.reduce(told, reduce_op="sum").tolist()
        if trainer.precision == "16-mixed":
            is_all = count == len(values) * trainer.world_size
            self._skipped = self._skipped + len(values) if is_all else 0
            if self._skipped < SKIPPED_AT_MOST and count < len(self._losses) * trainer.world_size:
                return
        if count:
            raise _diverged(trainer.current_epoch + 1, f"the loss is {wrong}")

    def _save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint to continue from: all processes take part, in the first's place."""
        path = self._job.out / checkpoints.RESUME
        with unfinished(path) if trainer.is_global_zero else nullcontext(path) as place:
            trainer.save_checkpoint(trainer.strategy.broadcast(place))

    def network(self, module: NetworkModule) -> nn.Module:
        """Return the network that is scored and written."""
        return module.network if self._averaging is None else self._averaging.best_network

    def _record(self, trainer: L.Trainer, module: NetworkModule, epoch: int, loss: float) -> None:
        per_class, pixels = self._score(trainer, module)
        scores = {"val_dice": float(per_class.mean())}
        if self._score_name == "val_miou":
            scores["val_miou"] = mean_iou(pixels)
        score = scores[self._score_name]
        module.take_score(score)
        is_better = score > self._best
        self._best, self._waited = (score, 0) if is_better else (self._best, self._waited + 1)
        if not trainer.is_global_zero:
            return
        if is_better:
            about = {"epochs": str(epoch), **{k: f"{v:.6f}" for k, v in scores.items()}}
            path = self._job.out / checkpoints.BEST
            checkpoints.save_weights(self.network(module), path, about)
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "seconds": round(self._before + time.monotonic() - self._started, 1),
            "train_loss": round(loss, 6),
            "lr": f"{self._rate:.4g}",
            **{name: round(value, 6) for name, value in scores.items()},
            # Empty where no held-out image has a value.
            **{name: "" if v is None else round(v, 6) for name, v in self._further.items()},
        }
        dice = (round(value, 6) for value in per_class.tolist())
        self._metrics.append(row | dict(zip(self._job.labels.names, dice, strict=True)))

    def _score(
        self, trainer: L.Trainer, module: NetworkModule
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Count held-out images; each process takes a share.

        Returns:
            Dice of every class, mean over the images, float64 (C,); and pixels of both, predicted
            and true, of all images, float64 (C, 3).
        """
        network = self.network(module)
        if trainer.world_size > 1:
            # Statistics of batch norms are each process's own until the next step.
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)
        numbers = range(trainer.global_rank, len(self._cases), trainer.world_size)
        network.eval()
        cases = self._cases.read(numbers)
        labels = self._job.labels
        try:
            with tallied(network) as tally:
                counts = count_cases(network, cases, labels, self._setting, self._predict)
            dice, pixels = dice_of(counts).sum(0), counts.double().sum(0)
            total = torch.cat([dice[:, None], pixels], 1)
        except DivergedError:
            # All processes have to end together.
            total = torch.full((len(labels), 4), math.nan, dtype=torch.float64)
        network.train()
        if trainer.world_size > 1:
            total = trainer.strategy.reduce(total.to(module.device), reduce_op="sum").cpu()
            tally = trainer.strategy.reduce(tally.to(module.device), reduce_op="sum")
        pairs = zip(self._further, tally.tolist(), strict=True)
        self._further = {name: value / count if count else None for name, (value, count) in pairs}
        if bool(total.isnan().any()):
            raise _diverged(trainer.current_epoch + 1, "the network gives NaN for held-out images")
        return total[:, 0] / len(self._cases), total[:, 1:]


def _diverged(epoch: int, found: str) -> DivergedError:
    return DivergedError(
        f"epoch {epoch}: {found}; lower optim.lr, or set clip, or precision=32-true"
    )
