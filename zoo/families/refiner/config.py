"""The settings of a second look."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from converters.types import LabelSpace
from zoo.config import RunConfig
from zoo.families.refiner.patches import STRIDE, Input, Places
from zoo.training.config import TrainerConfig
from zoo.training.losses import EXCLUSIVE, check_losses
from zoo.training.losses.objective import Objective

Start = Literal["hybrid", "mean"]


class RefinerConfig(TrainerConfig, RunConfig):
    """How a network learns to mend what is fused of other sources.

    `size` is that of a patch, `batch` counts patches. What the network starts from is decided by
    the images that it learns from alone, and so are its weights: no score of held-out images
    chooses among epochs.

    Attributes:
        sources: prediction stores of held-out images, of the split that the run learns with.
        start: the rule whose answer is mended; `hybrid` is fitted in the run's own folds, `mean` is
            plain.
        places: where the network looks: at `outlines` in patches that are never coarser than the
            finest source, or at `crops`, each around all there is of a class.
        detail: pixels of a patch along a cell of the finest source; no finer than the image's own.
        patches_per_image: how many an epoch takes from each image.
        inputs: what the network is given beside the fused log odds: the `image`, each of the
            `sources`' log odds, the highest of the `others`' (of all other classes' fused ones),
            and which `class` it is.
        width: channels at the finest scale; twice and four times as many at the next ones.
        drop: how often a source is left out of a patch that is learned from.
        errors: how strong the sources' errors are that are added to those they have; 0 adds none.
        loss: name of a loss -> weight, or {weight: ..., option: ...}; they are added.
    """

    sources: tuple[str, ...] = ()
    start: Start = "hybrid"
    places: Places = "outlines"
    detail: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    patches_per_image: int = Field(default=16, gt=0)
    inputs: tuple[Input, ...] = ("image", "sources", "others", "class")
    width: int = Field(default=12, ge=4, multiple_of=4)
    drop: float = Field(default=0.15, ge=0, lt=1)
    errors: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    loss: Annotated[dict[str, Any], AfterValidator(check_losses)] = Field(
        default_factory=lambda: {"bce": 0.5, "dice": 0.5}
    )

    @property
    def stride(self) -> int:
        """What the sides of patches are multiples of."""
        return STRIDE

    @model_validator(mode="after")
    def _learns_in_its_own_way(self) -> Self:
        if self.augment:
            raise ValueError("augment: expected none: 'errors' and 'drop' say what is done here")
        if self.patience or self.optim.follows_score:
            key = "patience" if self.patience else "optim.schedule plateau"
            raise ValueError(
                f"{key}: expected none: held-out images, which fusion is fitted on, choose nothing"
            )
        if asked := sorted(EXCLUSIVE & self.loss.keys()):
            raise ValueError(f"loss.{asked[0]}: expected losses of single classes, such as bce")
        return self

    def objective(self, labels: LabelSpace) -> Objective:
        """Return what training lowers: of one class at a time."""
        return Objective(self.loss)
