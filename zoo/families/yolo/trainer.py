"""Ultralytics' segmentation trainer with our checkpoints, scores and progress; under AGPL-3.0.

What the trainer does with network, loss, augmentation and optimiser stays as it is. Replaced is
what would unpickle files, reach for a network, enlarge masks, score in letterbox space, or depend
on what the random number generators did in earlier epochs.
"""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from converters.files.atomic import unfinished
from fusion.metrics.scores import Scores
from zoo.contract import DivergedError
from zoo.families.yolo import offline  # noqa: F401  (before anything of Ultralytics)
from zoo.families.yolo import process_group as group
from zoo.families.yolo.network import place_network
from zoo.run_files.checkpoints import BEST, LAST, RESUME, check_finite, first_broken, save_weights
from zoo.run_files.metrics import MetricsFile

# isort: split
from ultralytics.data.augment import Albumentations, Format
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils.torch_utils import unwrap_model

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation

Score = Callable[[nn.Module], Scores]
METRICS = ("epoch", "step", "seconds", "train_loss", "lr", "val_dice")
_RETRIES = 3
# Of OpenCV's fixed-point coordinates.
FRACTION_BITS = 4


@dataclass(frozen=True)
class TrainerPlan:
    """What a training run needs to know beyond Ultralytics' settings.

    Attributes:
        settings: Ultralytics' keys.
        classes: class names, in the order of the labels' numbers.
        images: the training images; their labels are where Ultralytics looks for them.
        build: makes the network; called after seeding.
        score: scores a network on the held-out images; None where there are none.
        score_every: epochs from one scoring to the next; the last one is always scored.
        precision: `32-true`, `16-mixed` or `bf16-mixed`.
        out: the run folder.
        about: texts that go with the weights.
        progress: called with (done, total, note) after each batch.
        augment: transforms of ours, as `ListedTransforms` takes them.
    """

    settings: dict[str, Any]
    classes: tuple[str, ...]
    images: Sequence[Path]
    build: Callable[[], nn.Module]
    score: Score | None
    score_every: int
    precision: str
    out: Path
    about: Mapping[str, str]
    progress: Callable[[int, int, str], None]
    augment: Augmentation | None = None

    @property
    def resume_from(self) -> Path:
        """What a killed run continues from."""
        return self.out / RESUME


class CoveredCells(Format):  # type: ignore[misc]
    """Ultralytics' last step of augmentation, with masks that are as large as the objects.

    Its own rasteriser (`data.utils.polygon2mask`) truncates vertices and sets every pixel of the
    network's input that an outline touches. At half the image's size, with `mask_ratio` 2, an
    object 16 pixels wide becomes 29 % larger, one of 26 pixels 16 %, and a network learns it so.
    Here objects are drawn at the image's size, and a cell is set where half of it is covered.
    """

    # Pixels of the image for one of the network's input, along a side.
    image_px = 1

    def _format_segments(
        self, instances: Any, cls: Any, w: int, h: int
    ) -> tuple[npt.NDArray[np.uint8], Any, Any]:
        if self.mask_overlap:
            masks, instances, cls = super()._format_segments(instances, cls, w, h)
            return masks, instances, cls
        size_hw = h // self.mask_ratio, w // self.mask_ratio
        rings = instances.segments
        cells = [covered_cells(ring, size_hw, self.mask_ratio, self.image_px) for ring in rings]
        return np.stack(cells), instances, cls


def covered_cells(
    ring: npt.NDArray[np.floating[Any]], size_hw: tuple[int, int], cell_px: int, image_px: int
) -> npt.NDArray[np.uint8]:
    """Return the cells that an object covers by half or more, uint8 (h, w), 0 or 1.

    Args:
        ring: float (N, 2), the outline in pixels of the network's input; the first covers 0..1.
        size_hw: cells of the result.
        cell_px: a cell's side in pixels of the input.
        image_px: pixels of the image for one of the input, along a side; `fillPoly`'s rule, by
            which an outline's pixels belong to the object, holds for those.
    """
    mask = np.zeros(size_hw, np.uint8)
    first = np.maximum(np.floor(ring.min(axis=0) / cell_px).astype(int) - 1, 0)
    last = np.minimum(np.ceil(ring.max(axis=0) / cell_px).astype(int) + 1, size_hw[::-1])
    if (last <= first).any():
        return mask
    cols, rows = (last - first).tolist()
    parts = cell_px * image_px
    fine = np.zeros((rows * parts, cols * parts), np.uint8)
    points = (ring - first * cell_px) * image_px - 0.5
    fixed = np.rint(points * 2**FRACTION_BITS).astype(np.int32)
    cv2.fillPoly(fine, [fixed], (255,), shift=FRACTION_BITS)
    share = cv2.resize(fine, (cols, rows), interpolation=cv2.INTER_AREA)
    # Cells of two by two pixels are often covered by half: every second one of them counts.
    odd = (np.arange(rows)[:, None] + np.arange(cols)) % 2
    mask[first[1] : last[1], first[0] : last[0]] = share >= 128 + odd
    return mask


class ListedImages(YOLODataset):  # type: ignore[misc]
    """Ultralytics' data set over a list of images, without its pickled cache of labels."""

    format_class = CoveredCells

    def __init__(self, ours: Augmentation | None, **settings: Any) -> None:
        self._ours = ours
        super().__init__(**settings)

    def get_img_files(self, img_path: Sequence[str]) -> list[str]:
        """Return the images as they were given."""
        return list(img_path)

    def build_transforms(self, hyp: Any) -> Any:
        """Return Ultralytics' augmentation; masks are drawn at the images' size."""
        transforms = super().build_transforms(hyp)
        sides = sorted(max(label["shape"]) for label in self.labels)
        image_px = max(1, round(sides[len(sides) // 2] / self.imgsz))
        transforms.transforms[-1].image_px = image_px
        if self._ours is not None:
            # Late: prediction needs no albumentations.
            from zoo.families.yolo.augment import ListedTransforms

            draw = partial(covered_cells, cell_px=1, image_px=image_px)
            steps = transforms.transforms
            place = next(i for i, step in enumerate(steps) if isinstance(step, Albumentations))
            steps[place] = ListedTransforms(self._ours, draw, image_px)
        return transforms

    def cache_images(self) -> None:
        """Read the images into memory, without a progress bar of its own."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().cache_images()

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        # The cache beside the labels is a pickle; in a data set from elsewhere it may run code.
        with tempfile.TemporaryDirectory() as folder:
            cache = self.cache_labels(Path(folder) / "labels.cache")
        if cache["results"][3]:
            raise ValueError(f"{cache_path.parent}: broken images or labels: {cache['msgs'][0]}")
        return cache, False


class OfflineSegmentation(SegmentationTrainer):  # type: ignore[misc]
    """One training run, or this process's part of it where several train together.

    Ultralytics would begin those by a script in the user's home. Here they are there already, and
    go by its own way for such processes: each has a share of the images, and the first one alone
    writes. They score together.

    Each epoch starts from random numbers that only the seed and the epoch decide, so that a run
    which was killed and continued ends like one that was not: on the CPU to the bit.
    """

    def __init__(self, plan: TrainerPlan) -> None:
        self.plan = plan
        self._attempts = 0
        self._batches = 0
        self.best_fitness: float | None = None
        threads = torch.get_num_threads()
        super().__init__(overrides=dict(plan.settings))
        # It leaves one core out, on a processor, which of two is half of them.
        torch.set_num_threads(threads)
        if not group.rank():
            self.wdir.rmdir()

    # --- what Ultralytics asks for

    def run_callbacks(self, event: str) -> None:
        """Run ours; telemetry and integrations add theirs to a list that nobody reads."""
        if event == "on_train_epoch_start":
            self._start_epoch()
        elif event == "on_train_batch_end":
            self._report()
        elif event == "on_train_epoch_end":
            self._average_loss()

    def get_dataset(self) -> dict[str, Any]:
        """Return what a data.yaml would say; its `download` key would be run as a program."""
        names = dict(enumerate(self.plan.classes))
        images = [str(path) for path in self.plan.images]
        return {"train": images, "val": [], "nc": len(names), "names": names, "channels": 3}

    def setup_model(self) -> None:
        """Build the network from the seed; nothing is unpickled or downloaded."""
        _seed(self.args.seed)
        self.model = place_network(self.plan.build(), self.device)

    def get_dataloader(
        self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> Any:
        """Return the training loader; scoring has its own way to the images."""
        if mode == "val":
            return SimpleNamespace(dataset=[])
        if group.world_size() > 1:
            # All have to shuffle alike; Ultralytics takes its seed for that from here.
            torch.manual_seed(self.args.seed + 1 + group.rank())
        return super().get_dataloader(dataset_path, batch_size, rank, mode)

    def build_dataset(
        self, img_path: Sequence[str], mode: str = "train", batch: int | None = None
    ) -> ListedImages:
        """Return the training images with Ultralytics' augmentation."""
        return ListedImages(
            self.plan.augment,
            img_path=img_path,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=True,
            hyp=self.args,
            cache=self.args.cache or None,
            stride=self.stride,
            pad=0.0,
            task="segment",
            data=self.data,
        )

    def _build_train_pipeline(self) -> None:
        # Here and not before: Ultralytics' own way of it knows GPUs alone.
        if group.world_size() > 1:
            self.world_size = group.world_size()
            self.model = group.bring_together(self.model, self.device)
        super()._build_train_pipeline()

    def get_validator(self) -> Any:
        """Return what is left of the validator: names of scores, of which there are none."""
        return SimpleNamespace(metrics=SimpleNamespace(keys=[]))

    def validate(self) -> tuple[dict[str, float], float | None]:
        """Score the averaged network at the images' own size."""
        last = self.epoch + 1 >= self.epochs or self.stop
        due = last or (self.epoch + 1) % self.plan.score_every == 0
        if self.plan.score is None or not due:
            return {}, None
        group.copy_buffers(self.ema.ema)
        scores = self.plan.score(self.ema.ema)
        fitness = scores.mean()
        if self.best_fitness is None or fitness >= self.best_fitness:
            self.best_fitness = fitness
        return {"val_dice": fitness, **scores.per_class()}, fitness

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Add the epoch's row to `metrics.csv`."""
        accumulated = max(round(self.args.nbs / self.batch_size), 1)
        row = {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * -(-len(self.train_loader) // accumulated),
            "seconds": round(self._seconds + time.monotonic() - self._started, 3),
            "train_loss": sum(float(value) for value in self.tloss.values()),
            "lr": metrics["lr/pg0"],
            **self.metrics,
        }
        self._table.append({n: row.get(n, "") for n in self._table.columns})

    def save_model(self) -> bool:
        """Write what a killed run continues from, and the averaged network's weights."""
        if self.fitness is not None and self.fitness == self.best_fitness:
            save_weights(self.ema.ema, self.plan.out / BEST, self.plan.about)
        save_weights(self.ema.ema, self.plan.out / LAST, self.plan.about)
        with unfinished(self.plan.resume_from) as place:
            torch.save(
                {"epoch": self.epoch, "finished": True} if self.stop else self._state(), place
            )
        return True

    def final_eval(self) -> None:
        """Nothing is left to do: the best epoch has been scored and saved."""

    def resume_training(self, ckpt: None) -> None:
        """Set the precision and continue from the last checkpoint, if there is one."""
        # Ultralytics would load a network to compare fp16 with fp32 if `amp` were on before.
        self.amp = self.plan.precision != "32-true"
        # A processor's is bfloat16 anyway, and asked for by name it is refused there.
        if self.plan.precision == "bf16-mixed" and self.device.type == "cuda":
            self.args.amp = "bf16"
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.plan.precision == "16-mixed")
        self._started = time.monotonic()
        if self.plan.resume_from.is_file():
            self.start_epoch = self._restore() + 1
        columns = (*METRICS, *self.plan.classes)
        self._table = MetricsFile(self.plan.out / "metrics.csv", columns)
        self._table.keep_until(self.start_epoch)
        self._seconds = self._table.last("seconds")

    def _handle_nan_recovery(self, epoch: int) -> bool:
        # All have to go on, or back, together.
        found = next(filter(None, group.gather([self._broken()])), "")
        if not found:
            self._attempts = 0
            return False
        self._attempts += 1
        if self._attempts > _RETRIES or not self.plan.resume_from.is_file():
            raise DivergedError(f"epoch {epoch + 1}: {found}; lower lr0, or set precision=32-true")
        self._model_train()
        self._restore()
        self.scheduler.last_epoch = epoch - 1
        return True

    # --- ours

    def _broken(self) -> str:
        """Say what is no number any more after an epoch; "" if all is well."""
        losses = [self.loss, *(self.tloss or {}).values()]
        if not all(bool(torch.as_tensor(x).isfinite().all()) for x in losses if x is not None):
            return "the loss is not a number"
        for network in (unwrap_model(self.model), self.ema.ema):
            if name := first_broken(network.state_dict()):
                return f"'{name}' holds NaN or infinite numbers"
        return ""

    def _start_epoch(self) -> None:
        # Apart for every retry, so that an epoch that failed does not fail in the same way.
        numbers = (self.args.seed, self.epoch, self._attempts)
        seed = np.random.SeedSequence((*numbers, group.rank()) if group.rank() else numbers)
        number = int(seed.generate_state(1)[0])
        _seed(number)
        self._batches = 0
        self.train_loader.generator.manual_seed(number)
        self.train_loader.reset()

    def _average_loss(self) -> None:
        self.tloss: dict[str, torch.Tensor] = group.average(self.tloss)

    def _report(self) -> None:
        self._batches += 1
        batches = len(self.train_loader)
        loss = sum(float(value) for value in self.tloss.values())
        note = f"epoch {self.epoch + 1}/{self.epochs}, loss {loss:.2f}"
        if self.best_fitness is not None:
            note += f", best Dice {self.best_fitness:.3f}"
        self.plan.progress(self.epoch * batches + self._batches, self.epochs * batches, note)

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "finished": False,
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_fitness": self.best_fitness,
            "stopper": (self.stopper.best_fitness, self.stopper.best_epoch),
        }

    def _restore(self) -> int:
        """Load the last checkpoint; return its epoch, counted from 0."""
        state = read_checkpoint(self.plan.resume_from, self.device)
        for part in ("model", "ema"):
            check_finite(state[part], self.plan.resume_from)
        unwrap_model(self.model).load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.best_fitness = state["best_fitness"]
        self.stopper.best_fitness, self.stopper.best_epoch = state["stopper"]
        epoch: int = state["epoch"]
        self._restore_criterion(epoch)
        return epoch

    def _restore_criterion(self, epoch: int) -> None:
        # The end-to-end loss shifts weight from one head to the other, epoch by epoch.
        network = unwrap_model(self.model)
        criterion = network.init_criterion()
        if hasattr(criterion, "update"):
            criterion.updates = epoch
            criterion.update()
            network.criterion = criterion


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `last.ckpt` holds: tensors and plain values, no code.

    Raises:
        ValueError: the file is not such a checkpoint.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: expected a checkpoint of this family: {reason}") from None
    if not isinstance(state, dict) or "epoch" not in state:
        raise ValueError(f"{path}: expected a checkpoint of this family, found {type(state)}")
    return state


def is_finished(out: Path) -> bool:
    """Tell whether the run has reached its last epoch."""
    path = out / RESUME
    return path.is_file() and bool(read_checkpoint(path).get("finished"))


def _seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
