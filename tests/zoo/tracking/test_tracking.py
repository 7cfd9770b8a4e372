from __future__ import annotations

import csv
import json
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import converters
from converters.masks import EMPTY, crop, rasterize_labels
from converters.types import LabelSpace
from fusion.sources.store import PredictionStore
from fusion.types import Prediction, soft_mask
from zoo.config import RunConfig, check_config, dump_config
from zoo.run_files.metrics import MetricsFile
from zoo.tracking import scores_of, tracked
from zoo.tracking.drawings import ScoredSample, apart, draw_sample, worst_samples


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _config(**track: Any) -> RunConfig:
    return check_config(RunConfig, {"track": track}, "test")


@pytest.fixture
def job(make_job: Any) -> Any:
    """A job whose classes are in groups."""
    made = make_job()
    groups = {"tiles": made.labels.names[1:]}
    return replace(made, labels=LabelSpace("toys", made.labels.names, groups))


def _rows(labels: LabelSpace, epochs: Sequence[int]) -> Iterator[dict[str, Any]]:
    for epoch in epochs:
        per_class = {name: round(0.01 * epoch + 0.05 * i, 6) for i, name in enumerate(labels.names)}
        mean = sum(per_class.values()) / len(per_class)
        yield {"epoch": epoch, "train_loss": 1 / epoch, "lr": "", "val_dice": mean, **per_class}


def _train(job: Any, epochs: Sequence[int], kill: bool = False) -> None:
    """Do what a family does: rows into `metrics.csv`, and progress."""
    columns = ("epoch", "train_loss", "lr", "val_dice", *job.labels.names)
    file = MetricsFile(job.out / "metrics.csv", columns)
    file.keep_until(epochs[0] - 1)
    for row in _rows(job.labels, epochs):
        file.append(row)
        job.progress(int(row["epoch"]), 9, "")
    if kill:
        raise Killed


def _predict(run: Path, config: Any, samples: Any, options: Any) -> Iterator[Prediction]:
    """Predict the truth, but nothing of the first tile on the last sample."""
    for i, sample in enumerate(samples):
        masks = {}
        for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
            if i == len(samples) - 1 and name == "tile-1":
                continue
            box = tuple(float(v) for v in mask.box_xywh)
            found = soft_mask(mask.pixels * np.uint8(255), box)  # type: ignore[arg-type]
            assert found is not None
            masks[name] = ((1.0, found),)
        yield Prediction(sample.key, sample.size_hw, "semantic", masks)


FAMILY: Any = SimpleNamespace(predict=_predict)


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    found = {t: [(e.step, e.value) for e in events.Scalars(t)] for t in tags["scalars"]}
    return found | {t: [] for t in tags["images"]}


def _log_records(data: bytes) -> Iterator[bytes]:
    """Read W&B's file: 7 bytes of its own, then LevelDB's log format (doc/log_format.md)."""
    place, block, whole = 7, 32768, b""
    while place < len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full record, or a record's last part
            yield whole
            whole = b""


def _history(folder: Path) -> tuple[set[str], dict[str, dict[int, Any]], dict[str, Any]]:
    """Return the ids, metric -> step -> value, and the config of offline W&B runs."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    # Its writer, a process of its own, is done when this returns; as at the end of ours.
    wandb.teardown()
    ids: set[str] = set()
    values: dict[str, dict[int, Any]] = {}
    settings: dict[str, Any] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in _log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
                settings |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
            items = {i.key or "/".join(i.nested_key): i for i in record.history.item}
            for name, item in items.items():
                step = json.loads(items["_step"].value_json)
                values.setdefault(name, {})[step] = json.loads(item.value_json)
    return ids, values, settings


def test_nobody_is_told_by_default(job: Any) -> None:
    with tracked(_config(pictures=3), job, FAMILY) as same:
        _train(same, [1, 2])
    assert same is job
    assert [p.name for p in job.out.iterdir()] == ["metrics.csv"]


def test_trackers_are_no_part_of_the_run() -> None:
    quiet = check_config(RunConfig, {}, "test")
    assert dump_config(_config(tensorboard=True, pictures=2)) == dump_config(quiet)


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ({"tensorbord": True}, "unknown key 'track.tensorbord'"),
        ({"wandb": {}}, "'track.wandb.project'"),
        ({"wandb": {"project": "x", "mode": "on"}}, "'track.wandb.mode'.*'offline' or 'online'"),
        ({"pictures": -1}, "'track.pictures'"),
    ],
)
def test_bad_settings(track: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(**track)


def test_names_and_groups(job: Any) -> None:
    row = {k: str(v) for k, v in next(_rows(job.labels, [3])).items()}
    found = scores_of(row | {"lr": "1e-3", "box_loss": "2"}, job.labels)
    assert {"train/loss", "train/lr", "val/dice", "box_loss", "dice/sheet"} <= found.keys()
    assert found["dice_of_group/tiles"] == pytest.approx(
        np.mean([0.03 + 0.05 * i for i in range(1, 9)])
    )


def test_tensorboard_has_each_epoch_once(job: Any) -> None:
    pytest.importorskip("tensorboard")
    config = _config(tensorboard=True)
    with pytest.raises(Killed), tracked(config, job, FAMILY) as watched:
        _train(watched, [1, 2, 3], kill=True)
    # The checkpoint was older than the scores: the third epoch runs again.
    with tracked(config, job, FAMILY) as watched:
        _train(watched, [3, 4])
    found = _scalars(job.out / "tracking" / "tensorboard")
    assert [step for step, _ in found["val/dice"]] == [1, 2, 3, 4]
    with (job.out / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    wanted = [(int(r["epoch"]), pytest.approx(float(r["tile-8"]))) for r in rows]
    assert found["dice/tile-8"] == wanted
    assert found["train/loss"][1] == (2, 0.5)
    assert len(found["dice_of_group/tiles"]) == 4
    assert "train/lr" not in found


@pytest.mark.slow
def test_wandb_offline_is_one_run(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = _config(wandb={"project": "bones"}, pictures=1)
    with pytest.raises(Killed), tracked(config, job, FAMILY) as watched:
        _train(watched, [1, 2], kill=True)
    with tracked(config, job, FAMILY) as watched:
        _train(watched, [3])
    ids, values, settings = _history(job.out / "tracking")
    assert len(ids) == 1
    assert sorted(values["val/dice"]) == [1, 2, 3]
    assert values["train/loss"][2] == 0.5
    assert settings["labels"] == "hand_bones"
    assert "notice" not in settings
    assert values["worst-1/layers/caption"][3] == f"{job.val[-1].key}, Dice 0.8889"
    assert values["worst-1/layers/masks/truth layer 1/_type"][3] == "mask"
    assert values["worst-1/difference/_type"][3] == "image-file"


@pytest.mark.slow
def test_what_is_told_about_the_machine(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    # A name that no chance makes: of two letters, some file holds them anyhow.
    monkeypatch.setattr(socket, "gethostname", lambda: "radiology-workstation-7")
    with tracked(_config(wandb={"project": "bones"}), job, FAMILY) as watched:
        _train(watched, [1])
    _history(job.out / "tracking")
    files = list((job.out / "tracking").rglob("run-*.wandb"))
    assert len(files) == 1
    assert b"radiology-workstation-7" not in files[0].read_bytes()
    assert not list((job.out / "tracking").rglob("requirements.txt"))
    assert not list((job.out / "tracking").rglob("wandb-metadata.json"))


@pytest.mark.slow
def test_pictures_of_the_worst(job: Any) -> None:
    config = _config(tensorboard=True, pictures=1)
    with tracked(config, job, FAMILY) as watched:
        _train(watched, [1])
    found = {
        t for t, values in _scalars(job.out / "tracking" / "tensorboard").items() if not values
    }
    names = {"truth", "prediction", "difference"}
    # The sheet lies under all tiles, which lie side by side: two layers.
    names |= {f"{side} layer {i}" for side in ("truth", "prediction") for i in (1, 2)}
    assert {t for t in found if t.startswith("worst")} == {f"worst-1/{name}" for name in names}


@pytest.mark.slow
def test_pictures_are_drawn_once(job: Any) -> None:
    config = _config(tensorboard=True, pictures=1)
    with tracked(config, job, FAMILY) as watched:
        _train(watched, [1])

    def fail(*_: Any) -> Iterator[Prediction]:
        raise AssertionError

    with tracked(config, job, SimpleNamespace(predict=fail)):  # type: ignore[arg-type]
        pass


def test_a_failing_picture_is_no_failed_run(job: Any) -> None:
    pytest.importorskip("tensorboard")

    def fail(*_: Any) -> Iterator[Prediction]:
        raise RuntimeError("out of memory")

    family: Any = SimpleNamespace(predict=fail)
    with (
        pytest.warns(UserWarning, match="track.pictures: RuntimeError: out of memory"),
        tracked(_config(tensorboard=True, pictures=1), job, family) as watched,
    ):
        _train(watched, [1])


def test_the_worst_are_found(job: Any, toys: Any) -> None:
    samples = toys.samples[:4]
    found = worst_samples(_predict(Path(), None, samples, None), samples, job.labels, 2)
    assert found[0].sample.key == samples[-1].key
    assert found[0].dice == pytest.approx(8 / 9)
    assert found[1].dice == 1
    assert found[0].masks["tile-1"].area == EMPTY.area


def test_the_worst_of_several_objects_are_those_of_the_lowest_pq(cells: Path) -> None:
    samples = converters.read(cells / "data")
    labels = converters.label_space(cells / "data")
    found = worst_samples(PredictionStore(cells / "plain"), samples, labels, 3)
    assert [one.sample.file_name for one in found] == ["row_1.png", "two_2.png", "two_3.png"]
    assert [one.pq for one in found] == [0.0, pytest.approx(0.6), 1.0]
    assert found[0].dice == 1.0
    assert draw_sample("worst-1", found[0], labels).caption.endswith(", Dice 1.0000, PQ 0.0000")


def test_layers_hold_classes_that_overlap_nowhere() -> None:
    def plane(left: int, right: int) -> Any:
        found = np.zeros((4, 12), bool)
        found[:, left:right] = True
        return found

    truth = {"a": plane(0, 4), "b": plane(3, 6), "c": plane(6, 8)}
    drawn = {"a": plane(0, 3), "c": plane(2, 8), "e": plane(9, 12)}
    names = ("a", "b", "c", "d", "e")
    assert apart(names, [truth]) == [("a", "c"), ("b",)]
    # c is drawn over a: what was one layer by the truth alone is two.
    assert apart(names, [truth, drawn]) == [("a", "e"), ("b", "c")]


@pytest.mark.slow
def test_no_layers_of_what_overlaps_everywhere(toys: Any) -> None:
    sample = toys.samples[0]
    everywhere = crop(np.ones(sample.size_hw, np.uint8))
    labels = LabelSpace("many", tuple(f"{number}" for number in range(9)))
    case = ScoredSample(sample, dict.fromkeys(labels.names, everywhere), 0.1)
    drawing = draw_sample("worst-1", case, labels)
    assert set(drawing.panels) == {"truth", "prediction", "difference"}
    assert not drawing.layers
    assert drawing.caption.endswith(", no layers: 9 would be needed")


@pytest.mark.slow
def test_a_tracker_that_fails_is_left_out(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    from zoo.tracking import backends

    def fail(*_: Any) -> None:
        raise ConnectionError("server is away")

    monkeypatch.setattr(backends.Wandb, "log_scores", fail)
    config = _config(tensorboard=True, wandb={"project": "bones"})
    with (
        pytest.warns(UserWarning, match=r"track\.wandb: ConnectionError: server is away; training"),
        tracked(config, job, FAMILY) as watched,
    ):
        _train(watched, [1, 2])
    monkeypatch.undo()
    with tracked(config, job, FAMILY) as watched:
        _train(watched, [3])
    assert [s for s, _ in _scalars(job.out / "tracking" / "tensorboard")["val/dice"]] == [1, 2, 3]
    assert sorted(_history(job.out / "tracking")[1]["val/dice"]) == [1, 2, 3]


def test_a_missing_library_is_one_line(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(
            ValueError, match=r"track\.wandb: expected the package wandb.*maskzoo\[track"
        ),
        tracked(_config(wandb={"project": "x"}), job, FAMILY),
    ):
        pytest.fail("the run began")


@pytest.mark.parametrize("rank", [{"RANK": "1"}, {"NODE_RANK": "0", "LOCAL_RANK": "2"}])
def test_one_process_tells(job: Any, monkeypatch: pytest.MonkeyPatch, rank: dict[str, str]) -> None:
    for name, value in rank.items():
        monkeypatch.setenv(name, value)
    with tracked(_config(tensorboard=True), job, FAMILY) as same:
        assert same is job


@pytest.mark.slow
def test_a_real_run_is_followed(make_job: Any, tiny_smp: Any) -> None:
    from zoo.families.smp.family import FAMILY as SMP

    job = make_job("real")
    config = tiny_smp(epochs=2, augment=[], track={"tensorboard": True, "pictures": 1})
    with tracked(config, job, SMP) as watched:
        SMP.train(config, watched)
    found = _scalars(job.out / "tracking" / "tensorboard")
    assert [step for step, _ in found["val/dice"]] == [1, 2]
    assert "worst-1/difference" in found
