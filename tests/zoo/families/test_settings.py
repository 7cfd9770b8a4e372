from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.families.settings import plan_prediction, plan_scoring
from zoo.families.smp.family import FAMILY

pytestmark = pytest.mark.slow

CPU = {"device": "cpu"}
WINDOWED = {"size": [64, 64], "window": [64, 64], "work_size": [192, 128], "overlap": 0.25}
FOCUSED = {**WINDOWED, "focus": {"shared": 0.5}, "windows_per_image": 2, "window_margin": 0.25}


def _options(**given: Any) -> PredictOptions:
    return check_config(PredictOptions, CPU | given, "zoo predict")


@pytest.mark.parametrize(
    ("trained", "given", "expected"),
    [
        ({}, {}, ((96, 64), None, 0.5)),
        ({}, {"size": "192x128"}, ((192, 128), None, 0.5)),
        ({}, {"window": 32}, (None, (32, 32), 0.5)),
        ({}, {"window": 32, "size": [96, 80], "overlap": 0.1}, ((96, 80), (32, 32), 0.1)),
        (WINDOWED, {}, ((192, 128), (64, 64), 0.25)),
        (WINDOWED, {"overlap": 0.5}, ((192, 128), (64, 64), 0.5)),
        (WINDOWED, {"window": "96"}, ((192, 128), (96, 96), 0.25)),
        (FOCUSED, {"window": "96"}, ((192, 128), (96, 96), 0.25)),
        (WINDOWED, {"window": "whole"}, ((192, 128), None, 0.25)),
        (WINDOWED, {"window": "whole", "size": 64}, ((64, 64), None, 0.25)),
    ],
)
def test_plans(
    tiny_smp: Callable[..., Any], trained: Any, given: Any, expected: tuple[Any, ...]
) -> None:
    plan = plan_prediction(tiny_smp(**trained), _options(**given))
    assert (plan.size_hw, plan.setting.window, plan.setting.overlap) == expected


def test_scoring_sees_what_the_run_learns(tiny_smp: Callable[..., Any]) -> None:
    setting = plan_scoring(tiny_smp(device="cpu", batch=3, **WINDOWED))
    assert (setting.window, setting.overlap, setting.batch) == ((64, 64), 0.25, 3)
    assert (setting.tta, setting.device.type) == ((), "cpu")


@pytest.mark.parametrize(
    ("trained", "given", "message"),
    [
        ({}, {"overlap": 0.5}, "overlap: expected together with 'window'"),
        ({}, {"window": 128, "size": 64}, r"window: expected at most the images' \[64, 64\]"),
        (
            {},
            {"size": 100},
            "images of 100 x 100 pixels for this network: 'size': .* multiples of 32",
        ),
        ({}, {"window": 40, "size": 100}, "images of 40 x 40 pixels for this network: 'size'"),
        (
            {"encoder": "tu-maxvit_tiny_rw_224", "size": [224, 224], "options": {}},
            {"tta": ["scale:0.75"]},
            "images of 160 x 160 pixels for this network: .* multiples of 224",
        ),
        (
            {
                **{"encoder": "tu-maxvit_tiny_rw_224", "options": {}},
                **{"size": [500, 448], "window": [224, 224]},
            },
            {"window": 256},
            "images of 256 x 256 pixels for this network: .* multiples of 224",
        ),
        ({}, {"device": "quantum"}, "device 'quantum'"),
    ],
)
def test_what_does_not_go_together(
    tiny_smp: Callable[..., Any], trained: Any, given: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_prediction(tiny_smp(**trained), _options(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tta": ["hflop"]}, "zoo predict: tta 'hflop': expected hflip"),
        ({"size": 0}, "zoo predict: 'size': expected a positive height and width"),
        ({"size": "big"}, "zoo predict: 'size'"),
        ({"window": "half"}, "zoo predict: 'window"),
        ({"window": "64x"}, "zoo predict: 'window"),
        ({"overlap": 1}, "zoo predict: 'overlap': expected a value less than 1"),
        ({"average": "votes"}, "zoo predict: 'average'"),
        ({"batch": -1}, "zoo predict: 'batch'"),
        ({"work_size": 64}, "zoo predict: unknown key 'work_size'.*; known are tta, average, size"),
    ],
)
def test_bad_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _options(**given)


def test_a_family_refuses_what_it_cannot_do() -> None:
    _options(tta=["hflip"]).refuse("yolo", "size", "window")
    with pytest.raises(ValueError, match="window: the family 'yolo' predicts without; found"):
        _options(window=32).refuse("yolo", "size", "window")


@pytest.mark.parametrize(
    ("given", "resolution"),
    [
        ({}, (96, 64)),
        ({"size": [192, 128]}, (192, 128)),
        ({"window": 32}, (96, 64)),
        ({"window": 64, "size": [192, 160], "overlap": 0.25}, (192, 160)),
        ({"tta": ["hflip+scale:1.5", "contrast:0.8"], "average": "logits"}, (96, 64)),
    ],
)
@pytest.mark.slow
def test_a_run_predicts_as_it_is_told(
    tiny_smp: Callable[..., Any],
    make_job: Callable[..., Any],
    toys: Any,
    given: dict[str, Any],
    resolution: tuple[int, int],
) -> None:
    from zoo.run_files import checkpoints

    job, config = make_job(), tiny_smp()
    torch.manual_seed(0)
    network = FAMILY.build(config, len(toys.labels))
    checkpoints.save_weights(network, job.out / checkpoints.LAST)
    samples = toys.samples[:2]
    found = list(FAMILY.predict(job.out, config, samples, _options(**given)))
    assert [(p.key, p.size_hw) for p in found] == [(s.key, s.size_hw) for s in samples]
    # A network that has learned nothing says something everywhere: rasters are whole.
    sizes = {mask.prob.shape for p in found for _, _, _, mask in p.rows()}
    assert sizes == {resolution}
