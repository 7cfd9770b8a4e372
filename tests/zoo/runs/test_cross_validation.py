"""Cross-validation: a run for each fold, and predictions that no run learned from."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from converters.files.provenance import read_provenance
from converters.splits.split import Split, make_split
from converters.types import LabelSpace
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore
from zoo.contract import PredictOptions
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.results import fit
from zoo.runs.cross_validation import assemble, find_folds, fold_path, predict_folds, train_folds
from zoo.runs.fold_ensemble import mean_prediction
from zoo.runs.run import Run
from zoo.runs.train import train as train_run
from zoo.source import DataSource

pytestmark = pytest.mark.slow

LABELS = LabelSpace.load("hand_bones")


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _quiet(done: int, total: int, note: str) -> None:
    pass


def _make_data(folder: Path, people: int = 4, seed: int = 0) -> DataSource:
    config = PhantomConfig(people=people, test_people=0, size=256, seed=seed)
    write_phantom(folder / "data", config)
    return DataSource.open(folder / "data")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    return _make_data(tmp_path_factory.mktemp("folds"))


@pytest.fixture(scope="module")
def split_path(data: DataSource) -> Path:
    path = data.path.parent / "split.json"
    make_split(data.read(LABELS), 3, 0).save(path)
    return path


@pytest.fixture(scope="module")
def config_path(data: DataSource) -> Path:
    path = data.path.parent / "tiny.yaml"
    raw = {
        "size": [64, 64],
        "epochs": 1,
        "batch": 2,
        "encoder": "tu-lcnet_035",
        "options": {"decoder_channels": [16, 16, 16, 8, 8]},
    }
    path.write_text(yaml.safe_dump(raw))
    return path


def _train(
    data: DataSource, split: Path | None, config: Path, out: Path, report: Any = _quiet
) -> Any:
    return train_folds(
        *("smp", str(config), data, out),
        split_path=split,
        changes=[],
        command=["zoo", "train"],
        report=report,
    )


@pytest.fixture(scope="module")
def trained(data: DataSource, split_path: Path, config_path: Path) -> Path:
    """Three runs and their store; killed while the second one learned, and while predicting."""
    out = data.path.parent / "cv"

    def kill_in_training(done: int, total: int, note: str) -> None:
        if note.startswith("fold 2/3 epoch"):
            raise Killed

    def kill_in_predicting(done: int, total: int, note: str) -> None:
        if note == "out of fold" and done == 4:
            raise Killed

    for kill in (kill_in_training, kill_in_predicting):
        with pytest.raises(Killed):
            _train(data, split_path, config_path, out, kill)
        assert not (out / "oof").exists()
    _train(data, split_path, config_path, out)
    return out


@pytest.mark.slow
def test_every_image_is_there_once(trained: Path, data: DataSource, split_path: Path) -> None:
    manifest = PredictionStore(trained / "oof").manifest
    assert sorted(manifest.images) == [sample.key for sample in data.read(LABELS)]
    split = Split.load(split_path)
    assert list(manifest.images) == [key for keys in split.folds for key in sorted(keys)]
    assert (manifest.subset, manifest.fold, manifest.split) == ("val", None, split.digest)
    assert read_provenance(trained / "oof")["split"] == split.digest


def test_each_prediction_is_of_the_run_that_held_the_image_out(
    trained: Path, data: DataSource
) -> None:
    found = {prediction.key: prediction for prediction in PredictionStore(trained / "oof")}
    samples = {sample.key: sample for sample in data.read(LABELS)}
    checked = 0
    for fold in range(3):
        run = Run.load(fold_path(trained, fold))
        assert run.split is not None
        assert run.fold == fold
        held_out = [samples[key] for key in sorted(run.split.val(fold))]
        for expected in run.family.predict(run.path, run.config, held_out, PredictOptions()):
            masks = found[expected.key].masks
            assert masks.keys() == expected.masks.keys()
            for label in masks:
                a, b = masks[label][0][1].prob, expected.masks[label][0][1].prob
                assert np.array_equal(a, b)
            checked += 1
    assert checked == len(found)


def test_what_is_done_is_left_alone(
    trained: Path, data: DataSource, split_path: Path, config_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    _train(data, split_path, config_path, trained)
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_weights_are_fitted_on_it(trained: Path, data: DataSource, tmp_path: Path) -> None:
    paths = [fold_path(trained, fold) for fold in (2, 0, 1)]
    mirrored = tmp_path / "mirrored"
    assemble(paths, data, mirrored, options=PredictOptions(tta=("hflip",)))
    fitted = fit.fit([trained / "oof", mirrored], data, tmp_path / "fusion.yaml", _quiet)
    assert fitted.fit.images == 8
    assert yaml.safe_load((tmp_path / "fusion.yaml").read_text())["sources"] == ["cv", "mirrored"]


def test_new_weights_make_new_predictions(trained: Path, data: DataSource, tmp_path: Path) -> None:
    cv = shutil.copytree(trained, tmp_path / "cv")
    other = fold_path(cv, 1) / "checkpoints" / "best.safetensors"
    shutil.copy(fold_path(cv, 0) / "checkpoints" / "best.safetensors", other)
    before = PredictionStore(cv / "oof").manifest
    after = assemble([fold_path(cv, fold) for fold in range(3)], data, cv / "oof")
    assert after.source["weights"] != before.source["weights"]
    found = {p.key: p for p in PredictionStore(cv / "oof")}
    changed = [
        p.key
        for p in PredictionStore(trained / "oof")
        if any(
            label not in found[p.key].masks
            or not np.array_equal(evidence[0][1].prob, found[p.key].masks[label][0][1].prob)
            for label, evidence in p.masks.items()
        )
    ]
    run = Run.load(fold_path(cv, 1))
    assert run.split is not None
    assert sorted(changed) == sorted(run.split.val(1))


def _twice(cv: Path) -> list[Path]:
    shutil.copytree(fold_path(cv, 0), cv / "copy")
    return [fold_path(cv, 0), fold_path(cv, 1), cv / "copy"]


def _missing(cv: Path) -> list[Path]:
    return [fold_path(cv, 0), fold_path(cv, 2)]


def _other_split(cv: Path) -> list[Path]:
    """A run that learned with other folds, for which its provenance speaks."""
    run = fold_path(cv, 1)
    split = json.loads((run / "split.json").read_text())
    split["folds"] = [split["folds"][i] for i in (0, 2, 1)]
    (run / "split.json").write_text(json.dumps(split))
    record = read_provenance(run)
    record["split"] = Split.load(run / "split.json").digest
    (run / "provenance.json").write_text(json.dumps(record))
    return [fold_path(cv, fold) for fold in range(3)]


def _tampered(cv: Path) -> list[Path]:
    """A run beside which another split was laid than the one it learned with."""
    paths = _other_split(cv)
    shutil.copy(fold_path(cv, 0) / "split.json", fold_path(cv, 1) / "split.json")
    return [paths[1], paths[0], paths[2]]


def _without_split(cv: Path) -> list[Path]:
    os.remove(fold_path(cv, 2) / "split.json")
    return [fold_path(cv, fold) for fold in (2, 0, 1)]


def _untrained(cv: Path) -> list[Path]:
    shutil.rmtree(fold_path(cv, 1) / "checkpoints")
    return [fold_path(cv, fold) for fold in range(3)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_twice, "copy: holds out fold 0, and so does .*fold-0"),
        (_missing, "each of 3 folds, found none that holds out fold 1"),
        (_other_split, "fold-1: expected the same split as .*fold-0"),
        (_tampered, "fold-1: split.json is not the one that the run learned with"),
        (_without_split, "fold-2: expected a run with split.json"),
        (_untrained, "fold-1: expected checkpoints/best.safetensors, found no weights"),
        (lambda cv: [], "expected a run for each fold, found none"),
    ],
)
def test_runs_that_could_leak_are_refused(
    trained: Path, data: DataSource, tmp_path: Path, damage: Any, said: str
) -> None:
    cv = shutil.copytree(trained, tmp_path / "cv")
    with pytest.raises(ValueError, match=said):
        assemble(damage(cv), data, tmp_path / "oof")
    assert not (tmp_path / "oof").exists()


def test_other_images_than_the_split_are_refused(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    paths = [fold_path(trained, fold) for fold in range(3)]
    with pytest.raises(ValueError, match=r"images are (in no fold|not in the data)"):
        assemble(paths, _make_data(other, people=1, seed=5), tmp_path / "oof")


def test_a_data_set_for_one_fold_is_refused(
    data: DataSource, split_path: Path, config_path: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data.path, tmp_path / "data")
    shutil.copy(split_path, copy / "split.json")
    record = {**read_provenance(copy), "fold": 1}
    (copy / "provenance.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="was written for fold 1"):
        _train(DataSource.open(copy), None, config_path, tmp_path / "cv")


def test_a_run_that_is_older_than_a_key_continues(
    trained: Path, data: DataSource, split_path: Path, config_path: Path, tmp_path: Path
) -> None:
    cv = shutil.copytree(trained, tmp_path / "cv")
    file = fold_path(cv, 0) / "config.yaml"
    kept = {k: v for k, v in yaml.safe_load(file.read_text()).items() if k not in ("ema", "swa")}
    file.write_text(yaml.safe_dump(kept))

    def train(*changes: str) -> None:
        train_run(
            *("smp", str(config_path), data, fold_path(cv, 0)),
            split_path=split_path,
            fold=0,
            changes=changes,
            command=[],
            report=_quiet,
        )

    train()
    with pytest.raises(ValueError, match="expected the same settings"):
        train("ema=0.9")


# --- predicting by all folds


def _assert_same(a: Any, b: Any) -> None:
    assert (a.key, a.masks.keys()) == (b.key, b.masks.keys())
    for label in a.masks:
        (_, one), (_, other) = a.masks[label][0], b.masks[label][0]
        assert one.box_xywh == other.box_xywh
        assert np.array_equal(one.prob, other.prob)


def test_runs_of_a_folder_are_found(trained: Path, tmp_path: Path) -> None:
    assert find_folds(trained) == [fold_path(trained, fold) for fold in range(3)]
    assert find_folds(fold_path(trained, 0)) == find_folds(tmp_path) == []


@pytest.mark.slow
def test_a_mean_of_folds_continues_where_it_was_killed(
    trained: Path, data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.runs.cross_validation.Manifest", partial(Manifest, images_per_part=2))
    paths, out = find_folds(trained), tmp_path / "mean"

    def kill(done: int, total: int, note: str) -> None:
        assert (total, note) == (8, "mean of 3 folds")
        if done == 5:
            raise Killed

    asked: Any = {"subset": "all", "options": PredictOptions()}
    with pytest.raises(Killed):
        predict_folds(paths, data, out, report=kill, **asked)
    assert not out.exists()
    seen: list[int] = []
    predict_folds(paths, data, out, report=lambda done, *_: seen.append(done), **asked)
    assert seen == [5, 6, 7, 8]
    manifest = predict_folds(paths, data, out, report=kill, **asked)
    assert (manifest.subset, manifest.fold) == ("all", None)
    assert manifest.source["runs"] == ["fold-0", "fold-1", "fold-2"]
    samples = data.read(LABELS)
    opened = [Run.load(path) for path in paths]
    each = [r.family.predict(r.path, r.config, samples, PredictOptions()) for r in opened]
    for found, *all_of_it in zip(PredictionStore(out), *each, strict=True):
        _assert_same(found, mean_prediction(all_of_it, LABELS))


@pytest.mark.slow
def test_held_out_images_are_predicted_by_the_run_that_held_them_out(
    trained: Path, data: DataSource, tmp_path: Path
) -> None:
    out = tmp_path / "val"
    predict_folds(find_folds(trained), data, out, subset="val", options=PredictOptions())
    for found, expected in zip(PredictionStore(out), PredictionStore(trained / "oof"), strict=True):
        _assert_same(found, expected)


def test_no_image_was_learned_from_by_all(trained: Path, data: DataSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--subset train: .* expected val .* test or all"):
        predict_folds(
            *(find_folds(trained), data, tmp_path / "out"),
            subset="train",
            options=PredictOptions(),
        )


@pytest.mark.parametrize("subset", ["val", "all"])
@pytest.mark.slow
def test_the_command_knows_folders_of_folds(
    trained: Path, data: DataSource, tmp_path: Path, subset: str
) -> None:
    from typer.testing import CliRunner

    from zoo.cli import app

    out = tmp_path / "store"
    given = ["predict", str(trained), "--data", str(data.path), "--subset", subset]
    said = CliRunner().invoke(app, [*given, "--out", str(out)])
    assert said.exit_code == 0
    assert said.output.endswith("store: semantic predictions of 8 images\n")
    assert PredictionStore(out).manifest.subset == subset
    compared = CliRunner().invoke(app, [*given, "--compare", "hflip"])
    assert "expected one run, such as" in str(compared.exception)
