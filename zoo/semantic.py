"""The config of the trainer that all semantic families share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from converters.types import LabelSpace
from zoo.config import RunConfig, StrictModel
from zoo.devices import Precision
from zoo.losses import check_losses
from zoo.losses.objective import Objective, resolve_class_weights
from zoo.optim import OptimConfig

if TYPE_CHECKING:
    from zoo.data import Windows

# Numbers that an optimizer keeps for each weight.
_STATES = {"adam": 2, "adamw": 2, "adamp": 2, "sgd": 1}
# Five halvings, of which an encoder-decoder undoes each.
STRIDE = 32


Size = tuple[int, int]


def _whole_strides(size: Size | None) -> Size | None:
    if size and (min(size) < STRIDE or any(side % STRIDE for side in size)):
        raise ValueError(f"expected height and width that are multiples of {STRIDE}")
    return size


def _positive(size: Size | None) -> Size | None:
    if size and min(size) < 1:
        raise ValueError("expected a positive height and width")
    return size


def _check_scales(weights: tuple[float, ...]) -> tuple[float, ...]:
    if weights and not (min(weights) >= 0 and weights[0] > 0 and math.isfinite(sum(weights))):
        raise ValueError("expected weights of at least 0, the first one larger")
    return weights


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


class SemanticConfig(RunConfig):
    """How a semantic network is trained.

    Attributes:
        window: height and width of the part of an image that the network sees at a time, multiples
            of 32; null is all of it.
        size: height and width that images are stretched to, in pixels; where the network sees whole
            images, multiples of 32.
        work_size: height and width that images are stretched to before windows are cut from them;
            null is `size`.
        overlap: how much of a window's side the next one repeats, when predicting and scoring.
        focus: class or group of the label space, or `shared` -> share of the training windows that
            are drawn around it, see `zoo.data.Windows`; the rest lie anywhere.
        windows_per_image: how many an epoch takes from each image.
        window_margin: how much more, in window sides, is cut out on each side of a window and
            augmented with it; what a rotation brings in is then the image's own.
        epochs: passes over the training samples.
        batch: images in a step, on each device.
        accumulate: steps whose gradients are added before the weights move.
        loss: name of a loss -> weight, or {weight: ..., option: ...}; they are added.
        class_weights: class or group of the label space -> how much it counts in every loss; the
            others count 1.
        smoothing: how far the truth moves toward one half in the losses of single pixels.
        shared_weight: how much pixels count that two or more classes share; the others count 1.
        deep_supervision: weights of the outputs of a network that gives several while it learns,
            finest first.
        optim: optimizer and learning rate.
        augment: albumentations' transforms and ours: `{name: HorizontalFlip, p: 0.5}`, in order.
        soft_targets: learn how much of a pixel a class covers, not whether its nearest pixel is
            set; for training below the images' size.
        clip: highest norm of the gradient; 0 does not clip.
        ema: how much an exponential average of the weights keeps at each step, such as .999; it is
            what is scored and written. null averages nothing.
        swa: average the weights of the last epochs; what is written at the end.
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
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        precision: `auto` lets the device's capability choose.
        channels_last: keep channels next to each other in memory; `auto` does so for convolutional
            networks on CUDA.
        compile: let torch.compile make kernels for the network: minutes at the start, faster steps.
        deterministic: choose kernels that give the same bits each time, where there are such;
            slower. Those that do not are noted in the run.
        devices: how many devices of that kind; passed to Lightning, like the next two.
        num_nodes: how many computers.
        strategy: how they work together.
        requeue: let Lightning put a Slurm job back into the queue when its time is over.
    """

    # Before the size, whose rule depends on it.
    window: Annotated[Size | None, AfterValidator(_whole_strides)] = None
    size: Annotated[Size, AfterValidator(_positive)]
    work_size: Annotated[Size | None, AfterValidator(_positive)] = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    focus: dict[str, float] = Field(default_factory=dict)
    windows_per_image: int = Field(default=1, gt=0)
    window_margin: float = Field(default=0.125, ge=0, le=1)
    epochs: int = Field(gt=0)
    batch: int = Field(gt=0)
    accumulate: int = Field(default=1, gt=0)
    loss: Annotated[dict[str, Any], AfterValidator(check_losses)] = Field(
        default_factory=lambda: {"bce": 0.5, "dice": 0.5}
    )
    class_weights: dict[str, float] = Field(default_factory=dict)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    shared_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    deep_supervision: Annotated[tuple[float, ...], AfterValidator(_check_scales)] = ()
    optim: OptimConfig = OptimConfig()
    augment: tuple[dict[str, Any], ...] = ()
    soft_targets: bool = False
    clip: float = Field(default=0.0, ge=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    swa: SwaConfig | None = None
    patience: int = Field(default=0, ge=0)
    validate_every: int = Field(default=1, gt=0)
    checkpoint_every: int = Field(default=1, gt=0)
    cache: Literal["memory", "disk", "none"] = "memory"
    cache_dir: str | None = Field(default=None, exclude=True)
    workers: int = Field(default=0, ge=0)
    init: str | None = None
    device: str = "auto"
    precision: Precision | Literal["auto"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    compile: bool = False
    deterministic: bool = False
    devices: int = Field(default=1, gt=0)
    num_nodes: int = Field(default=1, gt=0)
    strategy: str = "auto"
    requeue: bool = False

    @field_validator("size")
    @classmethod
    def _is_taken_whole(cls, size: Size, info: ValidationInfo) -> Size:
        # A bad window is told by itself.
        if info.data.get("window", size) is None:
            _whole_strides(size)
        return size

    @field_validator("augment")
    @classmethod
    def _known_transforms(
        cls, steps: tuple[dict[str, Any], ...], info: ValidationInfo
    ) -> tuple[dict[str, Any], ...]:
        if steps and "labels" in info.data:
            # Late: albumentations takes most of a second.
            from zoo.augmentation import build_steps

            build_steps(steps, LabelSpace.load(info.data["labels"]))
        return steps

    @property
    def image_size(self) -> Size:
        """Height and width that images are stretched to, whole or before windows are cut."""
        return self.work_size or self.size

    @model_validator(mode="after")
    def _windows_fit(self) -> SemanticConfig:
        if self.work_size and not self.window:
            raise ValueError(
                "work_size: expected together with 'window'; whole images are stretched to 'size'"
            )
        pairs = zip(self.window or (0, 0), self.image_size, strict=True)
        if any(side > whole for side, whole in pairs):
            key = "work_size" if self.work_size else "size"
            raise ValueError(
                f"window: expected at most {key} {list(self.image_size)}, found {self.window}"
            )
        if self.work_size and self.size != self.window:
            raise ValueError(
                f"size: expected the window's {self.window} beside work_size, found {self.size}"
            )
        plain = type(self).model_fields["window_margin"].default
        given = {
            "focus": bool(self.focus),
            "windows_per_image": self.windows_per_image > 1,
            "window_margin": self.window_margin != plain,
        }
        if not self.window and (key := next((k for k, is_given in given.items() if is_given), "")):
            raise ValueError(f"{key}: expected together with 'window'; whole images have no parts")
        if self.focus:
            self.windows(LabelSpace.load(self.labels))
        return self

    @property
    def input_size(self) -> Size:
        """Height and width of what the network is shown while it learns."""
        return self.window or self.size

    @property
    def has_average(self) -> bool:
        """Whether an average of the weights is kept beside those that learn."""
        return self.ema is not None or self.swa is not None

    @property
    def optimizer_states(self) -> int:
        """How many numbers the optimizer keeps for each weight."""
        is_plain = self.optim.name == "sgd" and not self.optim.momentum
        return 0 if is_plain else _STATES[self.optim.name]

    def with_batch(self, batch: int) -> str:
        """Return the changes that make batches smaller, for steps of as many images."""
        return f"batch={batch} accumulate={math.ceil(self.batch * self.accumulate / batch)}"

    def with_size(self, share: float) -> str:
        """Return the change that leaves a share of the images' sides; "" where there is none."""
        sides = [int(side * share) // STRIDE * STRIDE for side in self.size]
        return "" if self.window or min(sides) < 2 * STRIDE else f"size=[{sides[0]},{sides[1]}]"

    @property
    def input_key(self) -> str:
        """The key that says so, for messages."""
        return "window" if self.window else "size"

    def windows(self, labels: LabelSpace) -> Windows | None:
        """Return how windows are drawn to learn from; None shows whole images.

        Raises:
            ValueError: `focus` names neither a class nor a group, or gives away more than all.
        """
        # Late: it brings albumentations with it, which takes most of a second.
        from zoo.data import Windows

        if not self.window:
            return None
        return Windows(
            *(self.window, labels, self.focus, self.windows_per_image, self.window_margin)
        )

    @model_validator(mode="after")
    def _one_average(self) -> SemanticConfig:
        if self.swa is None:
            return self
        if self.ema is not None:
            raise ValueError("swa: expected either ema or swa, found both")
        if self.patience:
            raise ValueError("swa: expected patience 0, which could end the run before the average")
        if self.swa.lr is not None and self.optim.follows_score:
            raise ValueError(
                "swa.lr: expected null beside the schedule plateau, which sets the rate by scores; "
                "or choose another schedule"
            )
        return self

    @model_validator(mode="after")
    def _known_classes(self) -> SemanticConfig:
        if self.class_weights:
            resolve_class_weights(self.class_weights, LabelSpace.load(self.labels))
        return self

    def objective(self, labels: LabelSpace) -> Objective:
        """Return what training lowers.

        Raises:
            ValueError: `class_weights` names neither a class nor a group.
        """
        weights = resolve_class_weights(self.class_weights, labels) if self.class_weights else None
        return Objective(
            self.loss, weights, self.smoothing, self.shared_weight, self.deep_supervision
        )
