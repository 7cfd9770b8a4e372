"""Settings of networks whose queries are the instances."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from zoo.config import StrictModel


class MaskLossWeights(StrictModel):
    """How much each loss counts, and where masks are compared; transformers' names and values.

    Attributes:
        class_weight: which class a query is of.
        mask_weight: cross-entropy of a mask's points.
        dice_weight: Dice of a mask's points.
        no_object_weight: how much a query counts that shall be no object.
        train_num_points: points at which masks are compared.
        oversample_ratio: how many times as many are drawn to choose the least sure ones from.
        importance_sample_ratio: share of the points that are chosen so.
    """

    class_weight: float = Field(default=2.0, gt=0)
    mask_weight: float = Field(default=5.0, gt=0)
    dice_weight: float = Field(default=5.0, gt=0)
    no_object_weight: float = Field(default=0.1, gt=0)
    train_num_points: int = Field(default=12544, gt=0)
    oversample_ratio: float = Field(default=3.0, ge=1)
    importance_sample_ratio: float = Field(default=0.75, ge=0, le=1)


def check_source(config: Any) -> None:
    """Check that a network is described once, and has a query for each class.

    Args:
        config: with `labels`, `pretrained`, and `network`, which has `num_queries`.

    Raises:
        ValueError: both or none of `pretrained` and `network`, or fewer queries than classes.
    """
    if (config.pretrained is None) == (config.network is None):
        raise ValueError("expected either 'pretrained' or 'network', found both or none")
    classes = len(config.labels)
    if config.network is not None and config.network.num_queries < classes:
        raise ValueError(
            f"network.num_queries: expected at least {classes}, one a class, found "
            f"{config.network.num_queries}"
        )


def check_divides(names: str, wide: int, heads: int) -> None:
    """Check that heads divide a network's channels.

    Args:
        names: of the two, `hidden_dim num_attention_heads`.
        wide: the channels.
        heads: that share them.

    Raises:
        ValueError: they do not.
    """
    width, head = names.split()
    if wide % heads:
        raise ValueError(f"expected {width} {wide} that {head} {heads} divides")
