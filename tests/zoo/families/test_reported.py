"""What headers of configs quote of others: their figures, and the recipes that gave them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

import configs
from zoo.config import check_config
from zoo.families import FAMILIES, load_family
from zoo.families.catalogue import read_reported

pytestmark = pytest.mark.slow

QUOTED = [
    (family, name, found)
    for family in FAMILIES
    for name in configs.names(family)
    if (found := read_reported(configs.find(family, name).read_text("utf-8"))) is not None
]


@dataclass(frozen=True)
class Stated:
    """As much of a recipe as its authors stated.

    Attributes:
        network: words that name it -> the key of the config that has it.
        losses: their names; where it says nothing, those of a config are ours.
        weights: of them, where they were stated.
        batch: images between two steps of the optimiser.
        size: side of what the network sees.
        pretrained: False says that it began from random weights.
        differs: what a config may do without, where its header says so.
    """

    network: dict[str, str] = field(default_factory=dict)
    losses: frozenset[str] = frozenset()
    weights: tuple[float, ...] = ()
    batch: int = 0
    size: int = 0
    pretrained: bool = True
    differs: tuple[str, ...] = ()


def _fcn(size: int) -> Stated:
    return Stated({"architecture": "fcn_resnet50"}, size=size)


def _unetplusplus(encoder: str, **further: Any) -> Stated:
    return Stated({"architecture": "unetplusplus", "encoder": encoder}, **further)


FOCAL_DICE = frozenset({"focal", "dice"})
# Row, report and figure of the list of systems -> what was stated of them; test scores, not those
# of validation. A figure that has no config yet stands here all the same.
FIGURES: dict[str, dict[tuple[str, float], Stated]] = {
    "N1": {("", 0.9392): _fcn(512), ("", 0.9578): _fcn(1024), ("", 0.9629): _fcn(1536)},
    "N2": {
        ("R3", 0.9732): Stated({"architecture": "unet"}, FOCAL_DICE, (0.5, 0.5), batch=2),
        ("R0", 0.9701): Stated({"architecture": "unet", "encoder": "maxvit"}),
    },
    "N3": {
        ("R0", 0.9712): _unetplusplus("efficientnet-b7"),
        ("R0", 0.9542): _unetplusplus("efficientnet_b8"),
        ("R0", 0.9686): _unetplusplus("efficientnetv2_xl", pretrained=False),
        ("R0", 0.9693): _unetplusplus("resnext50_32x4d"),
        ("R0", 0.9578): _unetplusplus("efficientnet_b6"),
        ("R0", 0.9721): _unetplusplus("hrnet_w64"),
        ("", 0.968): _unetplusplus("efficientnet-b3"),
        ("R3", 0.9692): _unetplusplus("", losses=FOCAL_DICE, batch=1),
    },
    "N4": {
        ("R0", 0.9712): Stated({"encoder": "resnet"}),
        ("R0", 0.9705): Stated({"encoder": "b5"}),
        ("R0", 0.9727): Stated({"encoder": "maxvit"}),
        ("R3", 0.9687): Stated(losses=FOCAL_DICE, batch=2),
    },
    "N6": {("", 0.9705): Stated({"architecture": "upernet", "encoder": "hrnet"})},
    "N7": {("", 0.934): Stated({"architecture": "pspnet", "encoder": "efficientnet-b7"}, size=512)},
    "N8": {
        ("R3", 0.9662): Stated(
            {"architecture": "deeplabv3plus"},
            FOCAL_DICE,
            batch=4,
            differs=("CBAM", "self-attention"),
        )
    },
    "N9": {("R1", 0.919): Stated(size=512), ("R1", 0.962): Stated(size=512)},
    "N10": {("", 0.9638): Stated(size=1024)},
    "N11": {
        ("R0", 0.9267): Stated({"model": "yolov8x"}),
        ("R0", 0.9236): Stated({"model": "yolo11x"}),
        ("R1", 0.94): Stated({"model": "yolo"}, batch=1, size=2048),
    },
    "N12": {("", 0.9628): Stated({"encoder": "b7"})},
    "N13": {
        ("", 0.9716): Stated({"architecture": "swinunetr"}, size=1024, differs=("fine-tuned",))
    },
    "N15": {("R3", 0.9536): Stated({"encoder": "hrnet"}, frozenset({"bce", "dice"}), batch=32)},
}
# Rows of which no figure on hands was reported.
NO_FIGURE = {"", "N5", "N14", "N16", "N17", "N18", "N19", "N20"}


def _stated(family: str, name: str) -> tuple[str, Any, Stated]:
    text = configs.find(family, name).read_text("utf-8")
    found = read_reported(text)
    assert found is not None
    assert found.dice is not None
    config = check_config(load_family(family).Config, yaml.safe_load(text), name)
    return text, config, FIGURES[found.row][found.report, found.dice]


@pytest.mark.parametrize(("family", "name", "found"), QUOTED)
def test_a_quoted_figure_is_one_of_its_row(family: str, name: str, found: Any) -> None:
    if found.dice is None:
        assert found.row in NO_FIGURE | FIGURES.keys()
    else:
        assert (found.report, found.dice) in FIGURES[found.row]


WITH_FIGURE = [(family, name) for family, name, found in QUOTED if found.dice is not None]


def test_figures_are_quoted() -> None:
    assert len(WITH_FIGURE) >= 20


@pytest.mark.parametrize(("family", "name"), WITH_FIGURE)
def test_a_config_that_quotes_a_figure_has_its_recipe(family: str, name: str) -> None:
    text, config, stated = _stated(family, name)
    head = text[: text.index("\nsize:" if "\nsize:" in text else "\nmodel:")]
    assert "# Theirs: " in head
    assert "not stated" in head or "differs" in head
    for key, word in stated.network.items():
        assert word in getattr(config, key), key
    if stated.losses:
        assert stated.losses == config.loss.keys()
        assert config.optim.name == "adamw"
    if stated.weights:
        assert tuple(config.loss.values()) == stated.weights
    if stated.batch:
        is_plain = family == "yolo"
        found = config.nbs or config.batch if is_plain else config.batch * config.accumulate
        assert found == stated.batch
    if stated.size:
        assert config.input_size == (stated.size, stated.size)
    if not stated.pretrained:
        assert config.encoder_weights is None
    for word in stated.differs:
        assert word in head


def test_focal_tversky_is_that_of_an_ensemble_without_a_figure_of_its_own() -> None:
    text = configs.find("smp", "unetplusplus_hrnet_w64_focal_tversky").read_text("utf-8")
    found = read_reported(text)
    assert found == ("N3", "R2", None)
    assert yaml.safe_load(text)["loss"] == {"focal_tversky": 1.0}
    assert ".9755" in text


def _head(family: str, name: str) -> str:
    """Return the comments of a config, as one line."""
    lines = configs.find(family, name).read_text("utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


EVERY = [(family, name) for family in FAMILIES for name in configs.names(family)]
# Keys, files and tools that are called like configs.
NO_CONFIGS = {"pretrain_demo", "meta_data", "dynamic_img_size", "mask_ratio"}


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_configs_that_a_header_names_are_there(family: str, name: str) -> None:
    pattern = r"(?<![\w=/.@-])(?:([a-z]+)/)?([a-z0-9]+(?:_[a-z0-9]+)+)(?![\w:=])"
    for place, named in re.findall(pattern, _head(family, name)):
        if named not in NO_CONFIGS:
            places = [place] if place else FAMILIES
            assert any(named in configs.names(other) for other in places), named


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_the_figure_on_waste_stands_where_waste_is_learned(family: str, name: str) -> None:
    raw = yaml.safe_load(configs.find(family, name).read_text("utf-8"))
    assert "mIoU" not in _head(family, name) or raw.get("labels") == "waste"


def test_the_recipe_after_r3_is_made_of_configs_after_r3() -> None:
    recipe = yaml.safe_load(configs.find("recipes", "focal_and_dice").read_text("utf-8"))
    for model in recipe["models"].values():
        found = read_reported(configs.find(model["family"], model["config"]).read_text("utf-8"))
        assert found is not None
        assert found.report == "R3", model
