"""Apart from the other trackers: MLflow takes seconds to make the tables of a new database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from zoo.config import MlflowConfig, RunConfig, check_config
from zoo.run_files.metrics import MetricsFile
from zoo.tracking import tracked
from zoo.tracking.backends import Drawing, Mlflow, allowed

pytestmark = pytest.mark.slow

FAMILY: Any = SimpleNamespace()


def _train(job: Any, epochs: Sequence[int], error: BaseException | None = None) -> None:
    file = MetricsFile(job.out / "metrics.csv", ("epoch", "val_dice", *job.labels.names))
    for epoch in epochs:
        file.append({"epoch": epoch, "val_dice": epoch / 10} | dict.fromkeys(job.labels.names, 0.5))
        job.progress(epoch, 9, "")
    if error is not None:
        raise error


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "scores.db"


def _client(database: Path) -> Any:
    from zoo.tracking.backends import quiet_mlflow

    with quiet_mlflow():
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{database}")


def _runs(client: Any) -> list[Any]:
    experiment = client.get_experiment_by_name("bones")
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture
def job(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = make_job("fold-0")
    # Else MLflow puts artifacts below the working directory.
    monkeypatch.chdir(made.out)
    return made


def test_a_run_is_one_run_at_mlflow(
    job: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    uri = f"sqlite:///{database}"
    track = {"mlflow": {"uri": uri, "experiment": "bones"}}
    config = check_config(RunConfig, {"track": track, "seed": 7}, "test")
    for epochs, error, status in (
        ([1, 2], RuntimeError("no memory"), "FAILED"),
        ([3], KeyboardInterrupt(), "KILLED"),
        ([4], None, "FINISHED"),
    ):
        ended = suppress(RuntimeError, KeyboardInterrupt)
        with ended, tracked(config, job, FAMILY) as watched:
            _train(watched, epochs, error)
        runs = _runs(_client(database))
        assert [run.info.status for run in runs] == [status]
    run = runs[0]
    assert run.data.params["seed"] == "7"
    assert run.info.run_name == "fold-0"
    history = _client(database).get_metric_history(run.info.run_id, "val/dice")
    assert [(m.step, m.value) for m in history] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()


def test_pictures_are_artifacts(job: Any, database: Path) -> None:
    config = MlflowConfig(uri=f"sqlite:///{database}", experiment="pictures")
    tracker = Mlflow(config, job.out, "fold-0", {}, "")
    picture = np.full((6, 4, 3), 200, np.uint8)
    tracker.log_drawing(3, Drawing("worst-1", "a, Dice 0.5", picture, {"truth": picture}, ()))
    tracker.close("finished")
    client = _client(database)
    names = {found.path for found in client.list_artifacts(tracker.run_id, "worst-1")}
    assert names == {"worst-1/image.txt", "worst-1/truth.png"}
    path = client.download_artifacts(tracker.run_id, "worst-1/truth.png")
    assert np.array_equal(cv2.imread(path), picture)


@pytest.mark.parametrize(
    ("name", "wanted"), [("dice/finger-1", "dice/finger-1"), ("a:b(c)", "a_b_c_"), ("뼈", "뼈")]
)
def test_names_that_mlflow_takes(name: str, wanted: str) -> None:
    assert allowed(name) == wanted
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(wanted)


def test_a_server_that_is_not_there_is_one_line(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    track = {"mlflow": {"uri": "http://127.0.0.1:9"}}
    config = check_config(RunConfig, {"track": track}, "test")
    with (
        pytest.raises(ValueError, match=r"track\.mlflow: could not be opened: .*mlflow\.uri$"),
        tracked(config, make_job(), FAMILY),
    ):
        pytest.fail("the run began")
