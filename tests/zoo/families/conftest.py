"""What the tests of networks that find instances share: tiny ones, and images that they learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml

from zoo.config import check_config
from zoo.families import load_family

HEIGHT, WIDTH = 64, 96
# Three classes, of which an image has one object each, or several.
NAMES = ("disc", "a-block", "bar_2")


ENOUGH = 5.0


@dataclass(frozen=True)
class Finder:
    """A family's smallest network.

    Attributes:
        tiny: keys of its config.
        sure: more of them, with which it learns a few images by heart within `steps`.
        steps: so many.
        starts: how often it may begin anew, until its loss is `ENOUGH` times smaller.
        score: what it is sure of then.
        blocks: gradient checkpointing computes at least so many parts anew.
    """

    tiny: dict[str, Any]
    sure: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    starts: int = 1
    score: float = 0.0
    blocks: int = 0


def _maskrcnn() -> Finder:
    few = {
        "rpn_pre_nms_top_n_train": 100,
        "rpn_pre_nms_top_n_test": 100,
        "rpn_post_nms_top_n_train": 50,
        "rpn_post_nms_top_n_test": 50,
        "rpn_batch_size_per_image": 32,
        "box_batch_size_per_image": 32,
    }
    tiny = {"backbone": "tu-lcnet_035", "channels": 32, "hidden": 64, "mask_cells": 14}
    sure = {"architecture": "maskrcnn_resnet50_fpn", "freeze_norms": True}
    sizes = {"anchors": [8, 16, 24, 48, 64], "detector": few}
    return Finder(tiny | sizes, sure, steps=200, score=0.4, blocks=6)


def _mask2former() -> Finder:
    backbone = {
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 2],
        "window_size": 4,
        "drop_path_rate": 0.0,
    }
    network = {
        "backbone": backbone,
        "num_queries": 12,
        "hidden_dim": 32,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "num_attention_heads": 2,
        "encoder_feedforward_dim": 64,
        "dim_feedforward": 64,
    }
    tiny = {"network": network, "loss_weights": {"train_num_points": 256}}
    return Finder(tiny, steps=100, score=0.5, blocks=7)


def _oneformer() -> Finder:
    network = {**_mask2former().tiny["network"], "query_dec_layers": 1, "dropout": 0.0}
    tiny: dict[str, Any] = {"network": network, "loss_weights": {"train_num_points": 256}}
    # In larger steps the first thing that it learns is to find nothing.
    tiny["optim"] = {"name": "adamw", "lr": 1e-4}
    return Finder(tiny, steps=100, score=0.5, blocks=7)


def _eomt() -> Finder:
    network = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "patch_size": 8,
        "image_size": 64,
        "num_blocks": 2,
        "num_queries": 12,
        "num_upscale_blocks": 1,
    }
    tiny = {"network": network, "loss_weights": {"train_num_points": 256}}
    return Finder(tiny, steps=120, score=0.5, blocks=4)


def _rfdetr() -> Finder:
    backbone = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "patch_size": 8,
        "out_indices": [1, 3],
        "image_size": 64,
    }
    network = {
        "backbone": backbone,
        "num_queries": 12,
        "group_detr": 2,
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_self_attention_heads": 2,
        "decoder_cross_attention_heads": 2,
        "decoder_ffn_dim": 64,
    }
    # One group of queries learns faster, and of few cells all are worth to be looked at.
    weights = {"mask_point_sample_ratio": 1, "class_loss_coefficient": 2.0}
    sure = {"network": network | {"group_detr": 1}, "loss_weights": weights}
    # Of eight starts three missed an object, and which ones depends on the processor.
    return Finder({"network": network}, sure, steps=300, score=0.3, blocks=5, starts=6)


@pytest.fixture(scope="session")
def finders() -> dict[str, Finder]:
    return {
        "maskrcnn": _maskrcnn(),
        "mask2former": _mask2former(),
        "oneformer": _oneformer(),
        "eomt": _eomt(),
        "rfdetr": _rfdetr(),
    }


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Such small tensors are not worth to be shared out.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def label_file(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Label spaces of the three classes that are drawn, or of the toys'."""
    folder = tmp_path_factory.mktemp("labels")

    def make(once: bool = True, of_toys: bool = False) -> str:
        names = toys.labels.names if of_toys else NAMES
        path: Path = folder / f"{'toys' if of_toys else 'drawn'}-{once}.yaml"
        path.write_text(yaml.safe_dump({"name": path.stem, "names": list(names), "once": once}))
        return str(path)

    return make


@pytest.fixture(scope="session")
def configure(finders: dict[str, Finder], label_file: Callable[..., str]) -> Callable[..., Any]:
    """A family's config of its smallest network, for the toys."""

    def make(name: str, **changes: Any) -> Any:
        raw = {"labels": label_file(of_toys=True), "size": [96, 64], "epochs": 2, "batch": 2}
        raw |= finders[name].tiny
        return check_config(load_family(name).Config, raw | changes, "test")

    return make


@pytest.fixture(scope="session")
def build(configure: Callable[..., Any], label_file: Callable[..., str]) -> Callable[..., Any]:
    """A family's smallest network for what is drawn, with random weights."""

    def make(name: str, **changes: Any) -> Any:
        raw = {"labels": label_file(), "size": [HEIGHT, WIDTH], "epochs": 1}
        return load_family(name).build(configure(name, **raw | changes), len(NAMES))

    return make


class Drawn(NamedTuple):
    """Images with objects.

    Attributes:
        images: float (2, 1, h, w).
        masks: bool (2, P, h, w).
        classes: of the objects, int64 (P,).
    """

    images: torch.Tensor
    masks: torch.Tensor
    classes: torch.Tensor


@pytest.fixture(scope="session")
def draw() -> Callable[..., Drawn]:
    """Two images of three ellipses, of which the first two share pixels."""

    def make(classes: tuple[int, ...] = (0, 1, 2)) -> Drawn:
        places = (((30, 32), (16, 24)), ((48, 36), (14, 12)), ((78, 28), (9, 18)))
        images = torch.zeros(2, 1, HEIGHT, WIDTH)
        masks = torch.zeros(2, 3, HEIGHT, WIDTH, dtype=torch.bool)
        for n in range(2):
            for i, ((x, y), axes) in enumerate(places):
                plane = np.zeros((HEIGHT, WIDTH), np.uint8)
                cv2.ellipse(plane, (x - 5 * n, y + 3 * n), axes, 0, 0, 360, 1, -1)
                masks[n, i] = torch.from_numpy(plane).bool()
                images[n, 0] += (1.0, -1.5, 2.0)[i] * masks[n, i]
        return Drawn(images, masks, torch.tensor(classes))

    return make


@dataclass(frozen=True)
class Learned:
    """A network that knows the drawn images by heart, in evaluation mode."""

    network: Any
    drawn: Drawn
    losses: list[float]


@pytest.fixture(scope="session")
def learn(
    build: Callable[..., Any], draw: Callable[..., Drawn], finders: dict[str, Finder]
) -> Callable[..., Learned]:
    """Lets a family's smallest network learn the drawn images, once for all tests."""
    made: dict[Any, Learned] = {}

    def make(
        name: str, classes: tuple[int, ...] = (0, 1, 2), steps: int = 0, **changes: Any
    ) -> Learned:
        key = name, classes, steps, str(changes)
        for seed in range(finders[name].starts) if key not in made else ():
            torch.manual_seed(seed)
            network = build(name, **finders[name].sure | changes).train()
            drawn = draw(classes)
            losses = _learn(network, drawn, steps or finders[name].steps)
            if key not in made or sum(losses[-5:]) < sum(made[key].losses[-5:]):
                made[key] = Learned(network.eval(), drawn, losses)
            if 5 * losses[0] > ENOUGH * sum(losses[-5:]):
                break
        return made[key]

    return make


def _learn(network: Any, drawn: Drawn, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    # To the end of a falling rate: where a constant one stops, another processor may be elsewhere.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    losses = []
    for _ in range(steps):
        loss = network.loss(drawn.images, drawn.masks, drawn.classes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="session")
def find() -> Callable[..., Any]:
    """What a network finds in images."""

    def make(network: Any, images: torch.Tensor) -> Any:
        with torch.no_grad():
            return network.find(images)

    return make


@pytest.fixture(scope="session")
def pixels() -> Callable[..., Any]:
    """A soft mask's pixels in a drawn image, bool (h, w)."""
    return lambda mask: mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)


@pytest.fixture(scope="session")
def iou() -> Callable[..., float]:
    """How alike two planes, bool (h, w), are."""
    return lambda a, b: float((a & b).sum() / max((a | b).sum(), 1))
