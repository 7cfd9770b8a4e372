"""Labels from a fusion where a class may come several times in an image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import converters
from converters.masks import CropMask, crop, union
from converters.types import LabelSpace, Sample
from fusion.rules.refine import drop_uncertain
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction, SoftMask

SIZE_HW = (40, 64)
WASTE = LabelSpace("waste-like", ("Background", "cup", "bottle"), background="Background")


def box(x: int, y: int, width: int, height: int) -> CropMask:
    return CropMask(x, y, np.ones((height, width), np.uint8))


def ring() -> CropMask:
    plane = np.zeros(SIZE_HW, np.uint8)
    plane[4:20, 2:20] = 1
    plane[9:14, 8:13] = 0
    return crop(plane)


# Two cups that touch nothing of their kind, the left one with a hole, the right one at the border
# and under a bottle.
CUPS, BOTTLE = (ring(), box(44, 10, 20, 20)), box(38, 16, 14, 6)
MASKS = {"cup": union(*CUPS), "bottle": BOTTLE, "Background": box(0, 32, 64, 8)}


@pytest.fixture(scope="module")
def bins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with an image that nobody annotated, and two stores that agree on it."""
    root = tmp_path_factory.mktemp("waste")
    WASTE.save(root / "waste.yaml")
    assert not yaml.safe_load((root / "waste.yaml").read_text()).get("once")
    cv2.imwrite(str(root / "a_1.png"), np.zeros((*SIZE_HW, 3), np.uint8))
    sample = Sample("a_1", root / "a_1.png", SIZE_HW)
    converters.write([sample], root / "data", format="coco", labels=WASTE)
    manifest = Manifest(
        "semantic", str(root / "waste.yaml"), WASTE.names, {"a_1": (*SIZE_HW, "a_1.png")}
    )
    for name in "pq":
        masks = {
            label: ((1.0, SoftMask((0, 0, 64, 40), mask.full(SIZE_HW) * np.uint8(250))),)
            for label, mask in MASKS.items()
        }
        with StoreWriter(root / name, manifest) as writer:
            writer.append(Prediction("a_1", SIZE_HW, "semantic", masks))
    return root


@pytest.mark.parametrize("form", ["coco", "yolo", "datumaro", "handbone", "masks"])
def test_formats_hold_one_object_a_part(zoo, bins: Path, tmp_path: Path, form: str) -> None:
    zoo("fuse", bins / "p", bins / "q", "--out", tmp_path / "out", "--method", "mean",
        "--format", form, "--data", bins / "data", "--labels", bins / "waste.yaml")  # fmt: skip
    (sample,) = converters.read(tmp_path / "out", format=form, subset="all", labels=WASTE)
    counts = Counter(instance.label for instance in sample.instances)
    # Masks have one plane a class: what reads them cannot tell its objects apart.
    assert counts == {"cup": 1 if form == "masks" else 2, "bottle": 1}


# --- leaving out what is uncertain


def cups_of(first: int, second: int) -> Prediction:
    prob = CUPS[0].full(SIZE_HW) * np.uint8(first) + CUPS[1].full(SIZE_HW) * np.uint8(second)
    return Prediction("a", SIZE_HW, "semantic", {"cup": ((1.0, SoftMask((0, 0, 64, 40), prob)),)})


@pytest.mark.parametrize(
    ("levels", "kept", "dropped"),
    [((250, 140), 1, 1), ((250, 250), 2, 0), ((140, 150), 0, 2), ((100, 250), 1, 0)],
)
def test_each_object_is_as_sure_as_it_is(levels, kept: int, dropped: int) -> None:
    prediction, out = drop_uncertain(cups_of(*levels), 0.9, once=False)
    assert out == ("cup",) * dropped
    mask = prediction.binary("cup")
    sure = [c for c, level in zip(CUPS, levels, strict=True) if level > 240]
    assert len(sure) == kept
    expected = sum((c.full(SIZE_HW) for c in sure), np.zeros(SIZE_HW, np.uint8))
    assert np.array_equal(mask.full(SIZE_HW), expected)


def test_a_class_that_occurs_once_is_kept_or_left_out_whole() -> None:
    prediction, out = drop_uncertain(cups_of(250, 140), 0.9)
    assert (dict(prediction.masks), out) == ({}, ("cup",))


def test_nothing_at_all_is_neither_kept_nor_counted() -> None:
    nothing = SoftMask((70, 0, 5, 5), np.full((5, 5), 250, np.uint8))
    empty = Prediction("a", SIZE_HW, "semantic", {"cup": ((1.0, nothing),), "bottle": ()})
    prediction, out = drop_uncertain(empty, 0.5, once=False)
    assert (dict(prediction.masks), out) == ({}, ())


# --- objects that touch


@pytest.fixture(scope="module")
def touching(bins: Path) -> Path:
    """Two cups that touch, which a detector has seen one by one."""
    left, right = box(4, 4, 20, 20), box(24, 4, 20, 20)
    both = union(left, right).full(SIZE_HW) * np.uint8(250)
    masks = {"cup": ((1.0, SoftMask((0, 0, 64, 40), both)),)}
    seen = tuple(
        (score, SoftMask(tuple(map(float, own.box_xywh)), own.pixels * np.uint8(255)))
        for score, own in ((0.9, left), (0.8, right))
    )
    entry = {"a_1": (*SIZE_HW, "a_1.png")}
    for name, kind, found in (("mask", "semantic", masks), ("seen", "instance", {"cup": seen})):
        manifest = Manifest(kind, str(bins / "waste.yaml"), WASTE.names, entry, space=WASTE)
        with StoreWriter(bins / name, manifest) as writer:
            writer.append(Prediction("a_1", SIZE_HW, kind, found))
    return bins


@pytest.mark.parametrize(("sources", "expected"), [(("mask",), 1), (("mask", "seen"), 2)])
def test_a_data_set_has_the_objects_that_a_detector_has_seen(
    zoo, touching: Path, tmp_path: Path, sources: tuple[str, ...], expected: int
) -> None:
    zoo("fuse", *(touching / name for name in sources), "--out", tmp_path / "out", "--method",
        "mean", "--format", "coco", "--data", touching / "data")  # fmt: skip
    (sample,) = converters.read(tmp_path / "out", format="coco", subset="all", labels=WASTE)
    assert [instance.label for instance in sample.instances] == ["cup"] * expected


def test_a_store_has_them_where_it_is_asked_to(zoo, touching: Path, tmp_path: Path) -> None:
    words = ("fuse", touching / "mask", touching / "seen", "--method", "mean")
    zoo(*words, "--format", "store", "--objects", "--out", tmp_path / "store")
    zoo(*words, "--format", "store", "--out", tmp_path / "whole")
    apart, whole = (PredictionStore(tmp_path / name) for name in ("store", "whole"))
    assert (apart.manifest.kind, whole.manifest.kind) == ("instance", "semantic")
    (objects,), (mask,) = apart, whole
    assert [objects.masks["cup"][k][1].binary(SIZE_HW).area for k in range(2)] == [400, 400]
    assert objects.binary("cup", once=False).area == mask.binary("cup").area == 800


@pytest.mark.parametrize("form", ["csv", "store"])
def test_objects_are_refused_where_there_are_none(
    zoo, touching: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    once = tmp_path / "once"
    manifest = Manifest("semantic", "once", ("a",), {"a_1": (*SIZE_HW, "a_1.png")},
        space=LabelSpace("once", ("a",), once=True))  # fmt: skip
    with StoreWriter(once, manifest) as writer:
        writer.append(Prediction("a_1", SIZE_HW, "semantic", {}))
    source = touching / "mask" if form == "csv" else once
    zoo("fuse", source, "--objects", "--format", form, "--out", tmp_path / "out", code=2)
    assert "--objects: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_objects_are_scored_unasked_where_an_image_has_several(
    zoo, touching: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo("fuse", touching / "mask", touching / "seen", "--method", "mean", "--format", "coco",
        "--out", tmp_path / "truth", "--data", touching / "data")  # fmt: skip
    capsys.readouterr()
    for store, figures in (("seen", "1.0000   1.0000   1.0000"), ("mask", "0.0000        -")):
        zoo("evaluate", touching / store, "--data", tmp_path / "truth")
        said = capsys.readouterr().out
        assert next(line for line in said.splitlines() if line.startswith("objects"))
        assert figures in said
    zoo("evaluate", touching / "seen", "--data", tmp_path / "truth", "--metrics", "dice")
    assert "objects" not in capsys.readouterr().out
