"""Predictions on cropped data sets, as `zoo predict` writes them: in the originals' frame."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import converters
from converters.crops import crop, suggest_margin
from converters.masks import rasterize_labels
from converters.types import Frame, LabelSpace
from fusion.metrics.scores import dice
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.config import RunConfig
from zoo.contract import PredictOptions
from zoo.datasets.crop_boxes import read_boxes
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.runs.predict import predict
from zoo.runs.run import Run
from zoo.source import DataSource

LABELS = LabelSpace.load("hand_bones")


def perfect(sample) -> Prediction:
    """What a network would say that has learnt the sample's masks by heart."""
    masks = rasterize_labels(sample.instances, sample.size_hw)
    found = {
        name: ((1.0, SoftMask(mask.box_xywh, mask.pixels * np.uint8(255))),)
        for name, mask in masks.items()
        if mask.area
    }
    return Prediction(sample.key, sample.size_hw, "semantic", found)


FAMILY = SimpleNamespace(
    kind="semantic", predict=lambda run, config, samples, options: map(perfect, samples)
)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(folder, PhantomConfig(people=2, test_people=0, size=320))
    return folder


def predict_parts(data, out, tmp_path):
    run = Run(tmp_path / "run", "fake", FAMILY, RunConfig(), None, None)
    return predict(
        *(run, DataSource.open(data), out),
        subset="all",
        options=PredictOptions(),
        command=["zoo", "predict"],
        report=lambda done, total, text: None,
    )


@pytest.mark.parametrize("scale", [1, 2, 1.5])
@pytest.mark.slow
def test_a_perfect_prediction_on_crops_is_perfect_on_the_originals(scale, phantom, tmp_path):
    originals = converters.read(phantom, labels=LABELS)
    parts = crop(originals, ["carpals"], 6, LABELS, scale=scale)
    converters.write(parts, tmp_path / "crops", format="masks", labels=LABELS)
    manifest = predict_parts(tmp_path / "crops", tmp_path / "store", tmp_path)
    assert set(manifest.images.values()) == {(320, 320, s.file_name) for s in originals}
    for sample, found in zip(originals, PredictionStore(tmp_path / "store"), strict=True):
        assert (found.key, found.size_hw) == (sample.key, (320, 320))
        truth = rasterize_labels(sample.instances, sample.size_hw)
        for name in LABELS.groups["carpals"]:
            assert dice(found.binary(name), truth[name]) == 1, name
        assert 0 < dice(found.binary("Radius"), truth["Radius"]) < 1


def test_whole_images_stay_as_they_are(phantom, tmp_path):
    predict_parts(phantom, tmp_path / "store", tmp_path)
    for sample, found in zip(
        converters.read(phantom, labels=LABELS), PredictionStore(tmp_path / "store"), strict=True
    ):
        expected = perfect(sample)
        assert {n: m.box_xywh for n, _, _, m in found.rows()} == {
            n: m.box_xywh for n, _, _, m in expected.rows()
        }


# --- boxes


@pytest.mark.parametrize(
    ("box", "frame", "size_hw", "expected"),
    [
        ((0, 0, 40, 20), (7, 9, 40, 20), (20, 40), (7, 9, 40, 20)),
        ((0, 0, 80, 40), (7, 9, 40, 20), (40, 80), (7, 9, 40, 20)),
        ((2.5, 1, 3, 0.5), (7, 9, 40, 20), (20, 40), (9.5, 10, 3, 0.5)),
        ((2, 3, 30, 9), (7, 9, 40, 20), (60, 60), (7 + 4 / 3, 10, 20, 3)),
        ((-4, -6, 100, 90), (0, 0, 10, 30), (60, 20), (-2, -3, 50, 45)),
    ],
)
def test_boxes_are_moved_and_scaled(box, frame, size_hw, expected):
    mask = SoftMask(box, np.full((2, 3), 9, np.uint8))
    found = Prediction("a", size_hw, "instance", {"Ulna": ((0.7, mask), (0.5, mask))})
    placed = found.placed(Frame(frame, (50, 60)))
    assert (placed.key, placed.size_hw, placed.kind) == ("a", (50, 60), "instance")
    assert [score for score, _ in placed.masks["Ulna"]] == [0.7, 0.5]
    for _, moved in placed.masks["Ulna"]:
        assert moved.box_xywh == pytest.approx(expected, abs=1e-12)
        assert moved.prob is mask.prob


def test_a_soft_mask_is_enlarged_in_the_original_as_in_its_crop():
    raster = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (9, 13), np.uint8), (0, 0), 2
    )
    found = Prediction(
        "a", (45, 65), "semantic", {"Ulna": ((1.0, SoftMask((0, 0, 65, 45), raster)),)}
    )
    inside = found.masks["Ulna"][0][1].render((0, 0, 65, 45))
    placed = found.placed(Frame((11, 6, 65, 45), (70, 90)))
    outside = placed.masks["Ulna"][0][1].render((0, 0, 90, 70))
    np.testing.assert_array_equal(outside[6:51, 11:76], inside)
    assert outside.sum() == inside.sum()


# --- a first stage's boxes


def test_boxes_of_a_first_stage_crop_images_without_annotation(phantom, tmp_path):
    predict_parts(phantom, tmp_path / "store", tmp_path)
    boxes = read_boxes(tmp_path / "store", ["carpals"], LABELS)
    originals = converters.read(phantom, labels=LABELS)
    bare = [replace(sample, instances=()) for sample in originals]
    expected = [part.frame for part in crop(originals, ["carpals"], 5, LABELS)]
    assert [p.frame for p in crop(bare, ["carpals"], 5, LABELS, boxes=boxes)] == expected
    assert suggest_margin(originals, ["carpals"], LABELS, boxes).margin_px == 0


def test_images_without_the_bones_have_no_box(tmp_path):
    seen = SoftMask((4, 5, 6, 7), np.full((7, 6), 200, np.uint8))
    unsure = SoftMask((4, 5, 6, 7), np.full((7, 6), 100, np.uint8))
    found = {"a": {"Lunate": seen}, "b": {"Lunate": unsure}, "c": {"Ulna": seen}, "d": {}}
    manifest = Manifest(
        "semantic", LABELS.name, LABELS.names, {key: (40, 50, f"{key}.png") for key in found}
    )
    with StoreWriter(tmp_path / "store", manifest) as writer:
        for key, masks in found.items():
            evidence = {name: ((1.0, mask),) for name, mask in masks.items()}
            writer.append(Prediction(key, (40, 50), "semantic", evidence))
    assert read_boxes(tmp_path / "store", ["carpals"], LABELS) == {"a": (4, 5, 6, 7)}
    with pytest.raises(ValueError, match="classes of 'waste', found those of 'hand_bones'"):
        read_boxes(tmp_path / "store", ["paper"], LabelSpace("waste", ("paper",)))


@pytest.mark.parametrize(("once", "expected"), [(True, (4, 5, 6, 7)), (False, (4, 5, 36, 15))])
def test_a_box_holds_all_objects_where_a_class_may_occur_several_times(tmp_path, once, expected):
    path = tmp_path / "cups.yaml"
    LabelSpace("cups", ("cup", "lid"), once=once).save(path)
    labels = LabelSpace.load(str(path))
    filled = np.full((1, 1), 255, np.uint8)
    cups = ((0.9, SoftMask((4, 5, 6, 7), filled)), (0.6, SoftMask((36, 14, 4, 6), filled)))
    manifest = Manifest("instance", str(path), labels.names, {"a_1": (40, 50, "a_1.png")})
    with StoreWriter(tmp_path / "store", manifest) as writer:
        writer.append(Prediction("a_1", (40, 50), "instance", {"cup": cups}))
    assert read_boxes(tmp_path / "store", ["cup"], labels) == {"a_1": expected}
