"""The config of the trainer that all semantic families share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from converters.types import LabelSpace
from zoo.config import RunConfig
from zoo.training.config import Size, SwaConfig, TrainerConfig, check_positive, check_strides
from zoo.training.losses import check_losses
from zoo.training.losses.objective import Objective, resolve_class_weights

if TYPE_CHECKING:
    from zoo.data.windows import Windows


def _check_scales(weights: tuple[float, ...]) -> tuple[float, ...]:
    if weights and not (min(weights) >= 0 and weights[0] > 0 and math.isfinite(sum(weights))):
        raise ValueError("expected weights of at least 0, the first one larger")
    return weights


class WindowConfig(RunConfig):
    """Which parts of images a network learns from.

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


# Keys of the last base are read before those of the first: the rule of the size depends on the
# window.
class SemanticConfig(TrainerConfig, WindowConfig):
    """How a semantic network is trained: the keys of the trainer, of windows, and these.

    Attributes:
        loss: name of a loss -> weight, or {weight: ..., option: ...}; they are added.
        class_weights: class or group of the label space -> how much it counts in every loss; the
            others count 1.
        smoothing: how far the truth moves toward one half in the losses of single pixels.
        shared_weight: how much pixels count that two or more classes share; the others count 1.
        deep_supervision: weights of the outputs of a network that gives several while it learns,
            finest first.
        soft_targets: learn how much of a pixel a class covers, not whether its nearest pixel is
            set; for training below the images' size.
        swa: average the weights of the last epochs; what is written at the end.
        compile: let torch.compile make kernels for the network: minutes at the start, faster steps.
    """

    loss: Annotated[dict[str, Any], AfterValidator(check_losses)] = Field(
        default_factory=lambda: {"bce": 0.5, "dice": 0.5}
    )
    class_weights: dict[str, float] = Field(default_factory=dict)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    shared_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    deep_supervision: Annotated[tuple[float, ...], AfterValidator(_check_scales)] = ()
    soft_targets: bool = False
    swa: SwaConfig | None = None
    compile: bool = False

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
    def input_key(self) -> str:
        """The key that says so, for messages."""
        return "window" if self.window else "size"

    @property
    def sliding(self) -> tuple[Size | None, float]:
        """Height and width of the windows that are predicted, and their overlap; None: whole."""
        return self.window, self.overlap

    @property
    def last_average(self) -> SwaConfig | None:
        """How the weights of the last epochs are averaged; None: they are not."""
        return self.swa

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile makes kernels for the network."""
        return self.compile

    def with_size(self, share: float) -> str:
        """Return the change that leaves a share of the images' sides; "" where there is none."""
        return "" if self.window else super().with_size(share)

    def windows(self, labels: LabelSpace) -> Windows | None:
        """Return how windows are drawn to learn from; None shows whole images.

        Raises:
            ValueError: `focus` names neither a class nor a group, or gives away more than all.
        """
        # Late: it brings albumentations with it, which takes most of a second.
        from zoo.data.windows import Windows

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
