"""The config of the trainer that all semantic families share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from converters.types import LabelSpace
from zoo.config import RunConfig
from zoo.inference.setting import activation_of
from zoo.metadata.config import MetadataConfig
from zoo.training.config import SwaConfig, TrainerConfig, WindowConfig
from zoo.training.losses import EXCLUSIVE, check_losses
from zoo.training.losses.objective import Objective, resolve_class_weights


def _check_scales(weights: tuple[float, ...]) -> tuple[float, ...]:
    if weights and not (min(weights) >= 0 and weights[0] > 0 and math.isfinite(sum(weights))):
        raise ValueError("expected weights of at least 0, the first one larger")
    return weights


class SemanticConfig(TrainerConfig, WindowConfig, RunConfig):
    """How a semantic network is trained: the keys of the trainer, of windows, and these.

    A family's config says, beside how to train, which network.

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
        metadata: what is known of whose an image is, such as age and sex, as a further input or as
            a task beside the masks.
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
    metadata: MetadataConfig | None = None
    compile: bool = False

    @property
    def parts(self) -> WindowConfig:
        """Which parts of images the network learns from."""
        return self

    @property
    def last_average(self) -> SwaConfig | None:
        """How the weights of the last epochs are averaged; None: they are not."""
        return self.swa

    @property
    def is_compiled(self) -> bool:
        """Whether torch.compile makes kernels for the network."""
        return self.compile

    @property
    def outputs(self) -> int:
        """How many outputs the network can give while it learns."""
        return 1

    @property
    def pools_all(self) -> bool:
        """Whether a norm sees one value an image and channel, so that a batch needs two."""
        return False

    @property
    def least_batch(self) -> int:
        """How many images the network needs to see at a time while it learns."""
        return 2 if self.pools_all else 1

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
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
            self.windows(self.labels)
        return self

    @model_validator(mode="after")
    def _one_average(self) -> Self:
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
    def _hooks_are_run(self) -> Self:
        if self.metadata is not None and self.compile:
            raise ValueError("compile: expected false beside metadata, found true")
        return self

    @model_validator(mode="after")
    def _one_label_a_pixel(self) -> Self:
        asked = sorted(EXCLUSIVE & self.loss.keys())
        if asked and not self.labels.exclusive:
            raise ValueError(
                f"loss.{asked[0]}: expected a label space of which a pixel has one label "
                f"(exclusive: true), found '{self.labels.name}', whose classes may overlap: use "
                "bce, or say it in the label space"
            )
        return self

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        if self.class_weights:
            resolve_class_weights(self.class_weights, self.labels)
        return self

    @model_validator(mode="after")
    def _fits_network(self) -> Self:
        found, known = len(self.deep_supervision), self.outputs
        if found > 1 and found != known:
            expected = f"{known} weights, finest first, or none" if known > 1 else "none"
            raise ValueError(
                f"deep_supervision: this network gives {known} output{'s' * (known > 1)} while it "
                f"learns: expected {expected}, found {found}"
            )
        if self.batch < self.least_batch:
            raise ValueError(
                "batch: expected at least 2, found 1: this network normalises what it pools over "
                "the whole image, one value an image"
            )
        return self

    def objective(self, labels: LabelSpace) -> Objective:
        """Return what training lowers.

        Raises:
            ValueError: `class_weights` names neither a class nor a group.
        """
        weights = resolve_class_weights(self.class_weights, labels) if self.class_weights else None
        return Objective(
            self.loss,
            weights,
            self.smoothing,
            self.shared_weight,
            self.deep_supervision,
            activation_of(labels),
        )
