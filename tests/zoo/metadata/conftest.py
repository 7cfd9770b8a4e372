"""Images of noise of people: the mask is on the left of women and on the right of men."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapely.geometry import box

from converters.types import Instance, LabelSpace, Sample
from zoo.config import check_config
from zoo.contract import TrainJob

LABELS = LabelSpace("halves", ("half",))
SIDE = 64
# Of each pair of a woman and a man.
AGES = (20, 70, 50, 30, 60, 40)
HALVES = {"F": box(0, 0, 31, 63), "M": box(32, 0, 63, 63)}


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Twelve people, six of each sex; the older, the brighter is the noise."""
    folder = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    samples = []
    for number in range(12):
        age, sex = AGES[number // 2], "FM"[number % 2]
        noise = generator.normal(2 * age, 10, (SIDE, SIDE))
        path = folder / f"P{number:02d}.png"
        cv2.imwrite(str(path), np.clip(noise, 0, 255).astype(np.uint8))
        attributes = {"age": float(age), "sex": sex}
        instances = (Instance("half", HALVES[sex]),)
        samples.append(
            Sample(path.stem, path, (SIDE, SIDE), instances, f"ID{number:03d}", attributes)
        )
    return samples


@pytest.fixture
def job(people: list[Sample], tmp_path: Path) -> Callable[..., TrainJob]:
    def make(
        name: str = "run",
        train: Sequence[Sample] = people[:8],
        val: Sequence[Sample] = people[8:],
        **further: Any,
    ) -> TrainJob:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        data = Path(str(people[0].image)).parent
        return TrainJob(
            out=out,
            labels=LABELS,
            train=train,
            val=val,
            data=data,
            data_format="handbone",
            **further,
        )

    return make


@pytest.fixture
def configure() -> Callable[..., Any]:
    """A U-Net that learns which half in a few seconds."""
    from zoo.families.smp.config import SmpConfig

    def make(metadata: Any = None, **changes: Any) -> SmpConfig:
        raw = {
            "labels": LABELS.record(),
            "size": [SIDE, SIDE],
            "epochs": 2,
            "batch": 4,
            "encoder": "tu-lcnet_035",
            "options": {"decoder_channels": [32, 24, 16, 16, 8]},
            "optim": {"lr": 3e-3, "warmup_steps": 2},
            "device": "cpu",
        }
        given = {"columns": ["age", "sex"]} if metadata is None else metadata
        return check_config(SmpConfig, raw | {"metadata": given or None} | changes, "test")

    return make
