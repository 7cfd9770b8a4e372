"""The keys of the trainer that families share whose networks our own loop trains."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from converters.types import LabelSpace
from zoo.config import Labels, StrictModel, default_labels, read_auto_batch
from zoo.data.windows import Windows
from zoo.machine.devices import Precision
from zoo.synonyms import meant_precision
from zoo.training.optim import OptimConfig

# Numbers that an optimizer keeps for each weight.
_STATES = {"adam": 2, "adamw": 2, "adamp": 2, "sgd": 1}
# Five halvings, of which an encoder-decoder undoes each.
STRIDE = 32
Size = tuple[int, int]


def check_strides(size: Size | None, stride: int = STRIDE) -> Size | None:
    """Return a size whose sides a network can divide; by default, halve five times.

    Raises:
        ValueError: another one.
    """
    if size and (min(size) < stride or any(side % stride for side in size)):
        raise ValueError(f"expected height and width that are multiples of {stride}")
    return size


def check_positive(size: Size | None) -> Size | None:
    """Return a size that has pixels.

    Raises:
        ValueError: another one.
    """
    if size and min(size) < 1:
        raise ValueError("expected a positive height and width")
    return size


class SwaConfig(StrictModel):
    """How the weights of the last epochs are averaged (Izmailov et al. 2018).

    Attributes:
        start: share of the epochs after which averaging begins.
        lr: the constant learning rate from there on; null leaves the schedule as it is.
        anneal: epochs in which the rate moves to `lr`.
    """

    start: float = Field(default=0.75, ge=0, lt=1)
    lr: float | None = Field(default=None, gt=0)
    anneal: int = Field(default=1, ge=0)

    def first_epoch(self, epochs: int) -> int:
        """Return the first epoch, counted from 0, whose weights are in the average."""
        return min(int(self.start * epochs), epochs - 1)


class WindowConfig(StrictModel):
    """Which parts of images a network learns from; by default from whole images.

    Attributes:
        window: height and width of the part of an image that the network sees at a time, multiples
            of 32; null is all of it.
        work_size: height and width that images are stretched to before windows are cut from them;
            null is `size`.
        overlap: how much of a window's side the next one repeats, when predicting and scoring.
        focus: class or group of the label space, or `shared` -> share of the training windows that
            are drawn around it, see `zoo.data.windows.Windows`; the rest lie anywhere.
        windows_per_image: how many an epoch takes from each image.
        window_margin: how much more, in window sides, is cut out on each side of a window and
            augmented with it; what a rotation brings in is then the image's own.
    """

    window: Annotated[Size | None, AfterValidator(check_strides)] = None
    work_size: Annotated[Size | None, AfterValidator(check_positive)] = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    focus: dict[str, float] = Field(default_factory=dict)
    windows_per_image: int = Field(default=1, gt=0)
    window_margin: float = Field(default=0.125, ge=0, le=1)

    def windows(self, labels: LabelSpace) -> Windows | None:
        """Return how windows are drawn to learn from; None shows whole images.

        Raises:
            ValueError: `focus` names neither a class nor a group, or gives away more than all.
        """
        if not self.window:
            return None
        return Windows(self.window, labels, self.focus, self.windows_per_image, self.window_margin)


_WHOLE = WindowConfig()


class TrainerConfig(StrictModel):
    """How a network is trained, whatever it gives.

    Beside it a config has the keys of `zoo.config.RunConfig`. The two that the trainer reads are
    named here as well, before what is checked by them.

    Attributes:
        labels: label space, by name or file.
        seed: of weights, order, and augmentation.
        size: height and width that images are stretched to, in pixels; where the network sees whole
            images, multiples of 32 or of what the family names.
        epochs: passes over the training samples.
        batch: images in a step, on each device; `auto` takes as many as there is memory for, see
            `effective_batch`.
        accumulate: steps whose gradients are added before the weights move.
        effective_batch: with `batch: auto`, images between two moves of the weights, on each
            device; a change to `batch: auto` keeps those of the config. null once the batch is
            chosen.
        gradient_checkpointing: compute blocks of the network anew for the gradient instead of
            keeping what they computed: about a third more time, a fraction of the memory.
        in_channels: 1 shows images in grey, 3 in red, green and blue; `zoo train` looks at the data
            set's images where a config does not say it.
        optim: optimizer and learning rate.
        augment: albumentations' transforms and ours: `{name: HorizontalFlip, p: 0.5}`, in order.
        clip: highest norm of the gradient; 0 does not clip.
        ema: how much an exponential average of the weights keeps at each step, such as .999; it is
            what is scored and written. null averages nothing.
        patience: scores in a row without a better one after which the run ends; 0 goes on.
        validate_every: epochs between scores; the last one is always scored.
        checkpoint_every: epochs between checkpoints to continue from.
        cache: keep decoded samples at the network's size in `memory`, on `disk`, or `none`.
        cache_dir: folder for those on disk, which runs and folds may share; null is in the run. Not
            part of what the run is, so it may change when a run continues.
        workers: at most so many processes prepare batches, no more than there are cores; 0 prepares
            them in the main one.
        init: safetensors file with the weights to start from, of the same network; also one that
            ships beside the configs, such as `demo.safetensors`.
        weights_licence: of a file of pretrained weights, such as Apache-2.0; goes to
            `licences.json`, as those do that libraries state.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        precision: `auto` lets the device's capability choose, or the processor's instructions.
        channels_last: keep channels next to each other in memory; `auto` does so for convolutional
            networks, see `zoo.machine.devices.place`.
        deterministic: choose kernels that give the same bits each time, where there are such;
            slower. Those that do not are noted in the run.
        devices: how many devices of that kind; passed to Lightning, like the next two.
        num_nodes: how many computers.
        strategy: how they work together.
        requeue: let Lightning put a Slurm job back into the queue when its time is over.
    """

    labels: Labels = Field(default_factory=default_labels)
    seed: int = 0
    size: Annotated[Size, AfterValidator(check_positive)]
    epochs: int = Field(gt=0)
    batch: int = Field(gt=0)
    accumulate: int = Field(default=1, gt=0)
    effective_batch: int | None = Field(default=None, gt=0)
    gradient_checkpointing: bool = False
    in_channels: Literal[1, 3] = 1
    optim: OptimConfig = OptimConfig()
    augment: tuple[dict[str, Any], ...] = ()
    clip: float = Field(default=0.0, ge=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    patience: int = Field(default=0, ge=0)
    validate_every: int = Field(default=1, gt=0)
    checkpoint_every: int = Field(default=1, gt=0)
    cache: Literal["memory", "disk", "none"] = "memory"
    cache_dir: str | None = Field(default=None, exclude=True)
    workers: int = Field(default=0, ge=0)
    init: str | None = None
    weights_licence: str | None = None
    device: str = "auto"
    precision: Annotated[Precision | Literal["auto"], BeforeValidator(meant_precision)] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    deterministic: bool = False
    devices: int = Field(default=1, gt=0)
    num_nodes: int = Field(default=1, gt=0)
    strategy: str = "auto"
    requeue: bool = False

    @model_validator(mode="before")
    @classmethod
    def _number_for_auto(cls, raw: Any) -> Any:
        return read_auto_batch(raw)

    @field_validator("in_channels", mode="before")
    @classmethod
    def _no_truth(cls, given: Any) -> Any:
        if isinstance(given, bool):
            raise ValueError(f"expected 1 or 3, found {str(given).lower()}")
        return given

    @field_validator("augment")
    @classmethod
    def _known_transforms(
        cls, steps: tuple[dict[str, Any], ...], info: ValidationInfo
    ) -> tuple[dict[str, Any], ...]:
        if steps and "labels" in info.data:
            # Late: albumentations takes most of a second.
            from zoo.augmentation.steps import build_steps

            build_steps(steps, info.data["labels"])
        return steps

    @model_validator(mode="after")
    def _is_taken_whole(self) -> Self:
        # Of what sees windows, that is the windows' rule.
        if not self.parts.window:
            try:
                check_strides(self.size, self.stride)
            except ValueError as error:
                raise ValueError(f"'size': {error}, found {list(self.size)}") from None
        return self

    # What a kind of network may have beyond these keys, and what it is without.

    @property
    def stride(self) -> int:
        """What the sides of whole images are multiples of, for the network to divide them."""
        return STRIDE

    @property
    def parts(self) -> WindowConfig:
        """Which parts of images the network learns from; where it has no such keys, whole ones."""
        return _WHOLE

    @property
    def last_average(self) -> SwaConfig | None:
        """How the weights of the last epochs are averaged; None: they are not."""
        return None

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile makes kernels for the network."""
        return False

    @property
    def least_batch(self) -> int:
        """How many images the network needs to see at a time while it learns."""
        return 1

    # What follows from the keys.

    @property
    def image_size(self) -> Size:
        """Height and width that images are stretched to, whole or before windows are cut."""
        return self.parts.work_size or self.size

    @property
    def input_size(self) -> Size:
        """Height and width of what the network is shown while it learns."""
        return self.parts.window or self.size

    @property
    def input_key(self) -> str:
        """The key that says so, for messages."""
        return "window" if self.parts.window else "size"

    @property
    def has_average(self) -> bool:
        """Whether an average of the weights is kept beside those that learn."""
        return self.ema is not None or self.last_average is not None

    @property
    def optimizer_states(self) -> int:
        """How many numbers the optimizer keeps for each weight."""
        is_plain = self.optim.name == "sgd" and not self.optim.momentum
        return 0 if is_plain else _STATES[self.optim.name]

    @property
    def images_a_step(self) -> int:
        """How many images the weights move for, on each device."""
        return self.batch * self.accumulate

    def with_steps_of(self, batch: int) -> Self:
        """Return the config with a chosen batch, a divisor of the effective one."""
        steps = (self.effective_batch or self.images_a_step) // batch
        changes = {"batch": batch, "accumulate": steps, "effective_batch": None}
        return self.model_copy(update=changes)

    def with_batch(self, batch: int) -> str:
        """Return the changes that make batches smaller, for steps of as many images."""
        return f"batch={batch} accumulate={math.ceil(self.batch * self.accumulate / batch)}"

    def with_size(self, share: float) -> str:
        """Return the change that leaves a share of the images' sides; "" where there is none."""
        sides = [int(side * share) // STRIDE * STRIDE for side in self.size]
        is_fixed = self.parts.window or min(sides) < 2 * STRIDE
        return "" if is_fixed else f"size=[{sides[0]},{sides[1]}]"

    def with_checkpointing(self) -> Self | None:
        """Return the config with gradient checkpointing; None where it has that already."""
        if self.gradient_checkpointing:
            return None
        return self.model_copy(update={"gradient_checkpointing": True})
