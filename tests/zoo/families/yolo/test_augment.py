"""The config's list of transforms in Ultralytics' augmentation."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("ultralytics")

from zoo.augmentation.pipeline import Augmentation
from zoo.config import check_config
from zoo.families.yolo.augment import ListedTransforms
from zoo.families.yolo.config import YoloConfig
from zoo.families.yolo.trainer import covered_cells

# isort: split
from ultralytics.data.augment import Format
from ultralytics.utils.instance import Instances

pytestmark = pytest.mark.slow

SIDE = 64
FLIP = [{"name": "HorizontalFlip", "p": 1.0}]


def _rings() -> list[np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return [circle * (9, 14) + (20, 30), circle * (6, 5) + (26, 34), circle * (4, 4) + (62, 8)]


def _sample() -> dict[str, Any]:
    segments = np.clip(np.array(_rings(), np.float32), 0, SIDE)
    boxes = np.concatenate([segments.min(1), segments.max(1)], 1)
    image = np.zeros((SIDE, SIDE), np.uint8)
    for value, ring in zip((90, 160, 230), segments, strict=True):
        cv2.fillPoly(image, [np.rint(ring - 0.5).astype(np.int32)], (value,))
    return {
        "img": np.repeat(image[..., None], 3, axis=2),
        "cls": np.array([[2.0], [0.0], [2.0]]),
        "instances": Instances(boxes, segments, bbox_format="xyxy", normalized=False),
    }


def _apply(steps: list[dict[str, Any]], image_px: int = 1) -> dict[str, Any]:
    draw = partial(covered_cells, cell_px=1, image_px=image_px)
    random.seed(0)
    return ListedTransforms(Augmentation(steps), draw, image_px)(_sample())


def _masks(labels: dict[str, Any], image_px: int) -> np.ndarray:
    rings = labels["instances"].segments
    return np.stack([covered_cells(ring, (SIDE, SIDE), 1, image_px) for ring in rings])


@pytest.mark.parametrize(("image_px", "off"), [(1, 0.02), (2, 0), (3, 0)])
def test_objects_move_to_the_pixel(image_px: int, off: float) -> None:
    before, after = _sample(), _apply(FLIP, image_px)
    assert np.array_equal(after["img"], before["img"][:, ::-1])
    assert after["cls"].tolist() == before["cls"].tolist()
    found, expected = _masks(after, image_px), _masks(before, image_px)[..., ::-1]
    assert (found != expected).sum() <= off * expected.sum()


def test_boxes_are_those_of_the_outlines() -> None:
    after = _apply([{"name": "Rotate", "limit": [20, 20], "p": 1.0}])
    segments = after["instances"].segments
    expected = np.concatenate([segments.min(1), segments.max(1)], 1)
    assert np.allclose(after["instances"].bboxes, expected)


def test_grey_changes_leave_outlines_alone() -> None:
    after = _apply([{"name": "RandomGamma", "gamma_limit": [60, 60], "p": 1.0}])
    assert not np.array_equal(after["img"], _sample()["img"])
    assert np.array_equal(after["instances"].segments, _sample()["instances"].segments)


def test_objects_that_leave_the_image_are_dropped() -> None:
    step = {"name": "Affine", "translate_px": {"x": 20, "y": 0}, "p": 1.0}
    after = _apply([step])
    assert after["cls"].ravel().tolist() == [2.0, 0.0]
    assert len(after["instances"]) == 2


def test_what_is_left_is_what_ultralytics_formats() -> None:
    form = Format(bbox_format="xywh", normalize=True, return_mask=True, mask_ratio=1)
    formatted = form(_apply([{"name": "GridDistortion", "p": 1.0}]))
    assert formatted["masks"].shape[-2:] == (SIDE, SIDE)
    assert len(formatted["bboxes"]) == len(formatted["cls"])


def test_the_generator_of_ultralytics_decides() -> None:
    steps = [{"name": "Affine", "rotate": [-30, 30], "p": 1.0}]
    first, second = _apply(steps), _apply(steps)
    assert np.array_equal(first["img"], second["img"])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "Mosaik"}, r"augment\.0: unknown transform"),
        ({"name": "CutMix"}, "mixes samples by its own keys"),
    ],
)
def test_bad_steps_are_found_when_the_config_is_loaded(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(YoloConfig, {"augment": [step]}, "test")


def test_training_takes_the_list_in_place_of_ultralytics_own() -> None:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.augment import Albumentations

    from zoo.families.yolo.trainer import ListedImages

    data = ListedImages.__new__(ListedImages)
    data.imgsz, data.augment, data.rect, data.use_obb = SIDE, True, False, False
    data.use_segments, data.use_keypoints, data.cache, data.data = True, False, False, {}
    data.labels = [{"shape": (2 * SIDE, 2 * SIDE)}]
    kinds = {}
    for name, ours in (("theirs", None), ("ours", Augmentation(FLIP))):
        data._ours = ours
        steps = data.build_transforms(get_cfg(overrides={"mosaic": 0.0})).transforms
        kinds[name] = [type(step) for step in steps]
    place = kinds["theirs"].index(Albumentations)
    assert kinds["ours"][place] is ListedTransforms
    assert kinds["ours"][:place] == kinds["theirs"][:place]
    assert kinds["ours"][place + 1 :] == kinds["theirs"][place + 1 :]
