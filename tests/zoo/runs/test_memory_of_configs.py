"""Configs of whole images at 2048 x 2048 fit a V100 with 32 GB, by the estimate."""

from __future__ import annotations

import re
from typing import Any

import pytest

import configs
from zoo.config import load_config
from zoo.families import load_family
from zoo.families.outlines import load_outline
from zoo.runs.memory import GB, USABLE, estimate

pytestmark = [pytest.mark.slow, pytest.mark.long]

LARGE = [(f, n) for f in ("smp", "yolo") for n in configs.names(f) if n.endswith("_2048")]
V100 = 32 * GB
_ABOUT = re.compile(r"[Aa]bout (\d+) GB")


@pytest.mark.parametrize(("family", "name"), LARGE)
def test_whole_images_fit_a_v100(family: str, name: str) -> None:
    config: Any = load_config(load_family(family).Config, family, name)
    outline = load_outline(family)
    assert outline is not None
    assert config.input_size == (2048, 2048)
    assert config.gradient_checkpointing is (family != "yolo")
    assert config.precision == "auto"
    found = estimate(config, outline, "16-mixed")
    assert found.total <= USABLE * V100
    text = configs.find(family, name).read_text("utf-8")
    said = _ABOUT.search(text)
    assert said is not None
    assert float(said[1]) == pytest.approx(found.total / GB, abs=0.8)
    assert re.search(r"estimated, not\n?#? ?measured", text)


def test_there_are_some() -> None:
    assert len(LARGE) >= 6
