"""What a fusion becomes: labels, a store, a submission; and what needs to know sizes."""

import json
from collections import Counter

import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels
from converters.types import LabelSpace
from fusion import Mean
from fusion.rules.refine import confidence
from fusion.sources import submission
from fusion.sources.ensemble import Ensemble
from fusion.sources.store import PredictionStore


@pytest.mark.parametrize("form", ["handbone", "coco", "masks", "yolo", "datumaro"])
@pytest.mark.slow
def test_a_fusion_becomes_labels(leftovers, zoo, stores, work, toys, voted, tmp_path, form):
    out = tmp_path / "labels"
    zoo("fuse", *stores, "--out", out, "--method", "vote", "--format", form,
        "--data", work / "data")  # fmt: skip
    assert leftovers(tmp_path) == []
    back = converters.read(out, format=form, subset="all", labels=toys.labels)
    (tmp_path / "voted.csv").write_bytes(voted)
    images = {s.key: (*s.size_hw, s.file_name) for s in toys.samples}
    expected = Ensemble.open([tmp_path / "voted.csv"], images, toys.labels)
    assert [s.key for s in back] == [s.key for s in toys.samples]
    for sample, (voted_for,) in zip(back, expected, strict=True):
        masks = rasterize_labels(sample.instances, sample.size_hw)
        for label in toys.labels.names:
            full = voted_for.binary(label).full(sample.size_hw)
            differ = np.count_nonzero(masks[label].full(sample.size_hw) != full)
            # YOLO's polygons have no holes.
            assert differ <= (0.1 * full.sum() if form == "yolo" else 0), (label, differ)
    record = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert record["command"][0] == "zoo"
    assert "Vote" in record["config"]["rule"]


@pytest.mark.slow
def test_uncertain_objects_do_not_become_labels(zoo, stores, work, toys, tmp_path, capsys):
    out, floor = tmp_path / "labels", 0.93
    zoo("fuse", *stores, "--out", out, "--method", "mean", "--format", "coco",
        "--data", work / "data", "--floor", floor)  # fmt: skip
    expected, left_out = {}, Counter()
    for heard in Ensemble.open(stores):
        prediction = Mean()(heard, toys.labels)
        sure = {n for n in toys.labels.names if confidence(prediction, n) >= floor}
        left_out.update(set(toys.labels.names) - sure)
        expected[prediction.key] = sure
    back = converters.read(out, subset="all", labels=toys.labels)
    assert {s.key: {i.label for i in s.instances} for s in back} == expected
    assert 0 < left_out.total() < 54
    said = capsys.readouterr().out
    assert f"left out as uncertain: {left_out.total()} (" in said
    assert all(f"{label} {n}" in said for label, n in left_out.items())


def test_a_fusion_becomes_a_store_that_fuses_again(zoo, stores, fused, toys, tmp_path, voted):
    out = tmp_path / "mean"
    zoo("fuse", *stores, "--out", out, "--method", "mean", "--format", "store")
    store = PredictionStore(out)
    assert (store.manifest.subset, store.manifest.split) == ("val", "x")
    assert store.label_space().names == toys.labels.names
    for found, heard in zip(store, Ensemble.open(stores), strict=True):
        expected = Mean()(heard, toys.labels)
        for label in toys.labels.names:
            window = (0, 0, *found.size_hw[::-1])
            masks = (p.best(label)[1].render(window) for p in (found, expected))
            assert np.array_equal(*masks)
    direct = fused(stores, tmp_path / "a.csv", method="mean")
    assert fused([out], tmp_path / "b.csv", method="max") == direct


def test_a_store_from_submissions_needs_the_data_set(leftovers, zoo, files, work, toys, tmp_path):
    out, given = tmp_path / "store", (*files, "--method", "vote", "--format", "store")
    zoo("fuse", *given, "--out", out, code=2)
    data = ("--data", work / "data", "--labels", toys.labels_file)
    zoo("fuse", *given, "--out", out, *data)
    assert PredictionStore(out).manifest.subset == "all"
    assert list(PredictionStore(out).manifest.images) == [s.key for s in toys.samples]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("method", ["hybrid", "staple"])
def test_rules_that_look_around_ask_for_sizes(zoo, files, work, toys, tmp_path, capsys, method):
    out = tmp_path / "out.csv"
    zoo("fuse", *files, "--out", out, "--method", method, code=2)
    assert "looks at neighbours" in capsys.readouterr().err
    data = ("--data", work / "data", "--labels", toys.labels_file)
    zoo("fuse", *files, "--out", out, "--method", method, *data)
    assert len(list(submission.read(out))) == 54


def test_a_fused_submission_is_valid(zoo, work, toys, voted, tmp_path, capsys):
    path = tmp_path / "out.csv"
    path.write_bytes(voted)
    options = ("--data", work / "data", "--subset", "all", "--labels", toys.labels_file)
    zoo("check", path, *options)
    assert f"{path}: valid" in capsys.readouterr().out
    submission.write(path, list(submission.read(path))[1:])
    zoo("check", path, *options, code=2)
    said = capsys.readouterr().err
    assert "expected 54 rows, found 53" in said
    assert "missing: toy_0_L.png sheet" in said


def test_labels_load_from_the_file_that_a_store_names(work, toys):
    assert PredictionStore(work / "a").label_space() == LabelSpace.load(str(toys.labels_file))
