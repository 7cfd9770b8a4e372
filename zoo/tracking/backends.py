"""TensorBoard, Weights & Biases and MLflow behind one interface; each is imported when asked for.

Nothing goes to a server that the config does not name, and the libraries' own telemetry is off.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from converters.errors import one_line
from zoo.config import MlflowConfig, TrackConfig, WandbConfig

Ending = Literal["finished", "failed", "stopped"]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layer:
    """Classes that overlap nowhere on an image, as one map.

    Attributes:
        name: such as `prediction 1`.
        numbers: uint8 or uint16 (h, w); 0 is no class.
        names: number -> class.
    """

    name: str
    numbers: npt.NDArray[np.unsignedinteger[Any]]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Drawing:
    """What is shown of one validation image.

    Attributes:
        name: such as `worst-1`.
        caption: which image, and how well it went.
        ground: the radiograph, uint8 (h, w, 3) RGB.
        panels: name -> picture, uint8 (h, w, 3) RGB: truth, prediction, difference, and so on.
        layers: the same masks as numbers, for a viewer that draws them itself.
    """

    name: str
    caption: str
    ground: Picture
    panels: Mapping[str, Picture]
    layers: Sequence[Layer]


class Tracker(Protocol):
    """Takes a run's scores and pictures.

    Attributes:
        name: its key in the config.
        run_id: by which a continued run finds its earlier part; "" where the place says it.
    """

    name: str
    run_id: str

    def log_scores(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Take the scores of an epoch, counted from 1."""

    def log_drawing(self, epoch: int, drawing: Drawing) -> None:
        """Take pictures of an image."""

    def close(self, ending: Ending) -> None:
        """Write out what is waiting, and say how the run ended."""


def open_trackers(
    config: TrackConfig,
    folder: Path,
    run_name: str,
    settings: Mapping[str, Any],
    run_ids: Mapping[str, str],
) -> list[Tracker]:
    """Open what a config names.

    Args:
        config: whom to tell.
        folder: for files, below the run folder.
        run_name: as lists show it.
        settings: the run's config, plain values.
        run_ids: of trackers in an earlier part of the same run.

    Raises:
        ValueError: a library is missing, or a server cannot be reached.
    """
    found: list[Tracker] = []
    if config.tensorboard:
        found.append(TensorBoard(folder / "tensorboard", settings))
    if config.wandb is not None:
        # The agent of a W&B sweep says by the variable which run it waits for.
        run_id = run_ids.get("wandb") or os.environ.get("WANDB_RUN_ID")
        run_id = run_id or os.urandom(4).hex()
        found.append(Wandb(config.wandb, folder, run_name, settings, run_id))
    if config.mlflow is not None:
        run_id = run_ids.get("mlflow", "")
        found.append(Mlflow(config.mlflow, folder, run_name, settings, run_id))
    return found


def _load(module: str, key: str, package: str) -> Any:
    try:
        with warnings.catch_warnings():
            # Of the vendors, about their own dependencies.
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"track.{key}: expected the package {package}, found none; "
            "install it with: pip install 'maskzoo[track]'"
        ) from None


class TensorBoard:
    """Event files; a continued run adds a file to the folder, which TensorBoard reads as one."""

    name, run_id = "tensorboard", ""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        module = _load("torch.utils.tensorboard", "tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(folder))
        if len(list(folder.iterdir())) == 1:
            lines = (f"    {key}: {value}" for key, value in flatten(settings).items())
            self._writer.add_text("config", "\n".join(lines))

    def log_scores(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Take the scores of an epoch, counted from 1."""
        for name, value in scores.items():
            self._writer.add_scalar(name, value, epoch)
        # A killed run leaves what it has scored.
        self._writer.flush()

    def log_drawing(self, epoch: int, drawing: Drawing) -> None:
        """Take pictures of an image."""
        self._writer.add_text(f"{drawing.name}/image", drawing.caption, epoch)
        for name, picture in drawing.panels.items():
            tag = f"{drawing.name}/{name}"
            self._writer.add_image(tag, picture, epoch, dataformats="HWC")

    def close(self, ending: Ending) -> None:
        """Write out what is waiting."""
        self._writer.close()


class Wandb:
    """Weights & Biases: files for `wandb sync`, or its server.

    Parts of an offline run share their id; `wandb sync` makes one run of them.
    """

    name = "wandb"

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        run_name: str,
        settings: Mapping[str, Any],
        run_id: str,
    ) -> None:
        # Read when the library is imported: its crash reports go to another company.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb = _load("wandb", "wandb", "wandb")
        self.run_id = run_id
        folder.mkdir(parents=True, exist_ok=True)
        quiet = self._wandb.Settings(
            console="off",
            silent=True,
            host="",  # else the computer's name
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        try:
            self._run = self._wandb.init(
                project=config.project,
                entity=config.entity,
                mode=config.mode,
                tags=config.tags,
                id=run_id,
                name=run_name,
                config=dict(settings),
                dir=str(folder),
                resume="allow",
                reinit="create_new",
                settings=quiet,
            )
        except Exception as error:
            raise _unreachable("wandb", error, "mode=offline writes files instead") from None

    def log_scores(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Take the scores of an epoch, counted from 1."""
        self._run.log(dict(scores), step=epoch)

    def log_drawing(self, epoch: int, drawing: Drawing) -> None:
        """Take pictures of an image; the masks also as layers to switch on and off."""
        image, caption = self._wandb.Image, drawing.caption
        masks = {
            layer.name: {"mask_data": layer.numbers, "class_labels": dict(layer.names)}
            for layer in drawing.layers
        }
        shown = {f"{drawing.name}/layers": image(drawing.ground, caption=caption, masks=masks)}
        for name, picture in drawing.panels.items():
            shown[f"{drawing.name}/{name}"] = image(picture, caption=caption)
        self._run.log(shown, step=epoch)

    def close(self, ending: Ending) -> None:
        """Write out what is waiting, and say whether the run ended well."""
        self._run.finish(exit_code=0 if ending == "finished" else 1)


class Mlflow:
    """MLflow through its client, which has no state beyond this run."""

    name = "mlflow"

    def __init__(
        self,
        config: MlflowConfig,
        folder: Path,
        run_name: str,
        settings: Mapping[str, Any],
        run_id: str,
    ) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        self._entities = _load("mlflow.entities", "mlflow", "mlflow-skinny")
        folder.mkdir(parents=True, exist_ok=True)
        local = (folder / "mlflow.db").resolve()
        uri = config.uri or f"sqlite:///{local}"
        try:
            with quiet_mlflow():
                self._client = _load("mlflow", "mlflow", "mlflow-skinny").MlflowClient(uri)
                self.run_id = run_id or self._create(config, folder, run_name)
                self._client.update_run(self.run_id, status="RUNNING")
                if not run_id:
                    self._client.log_batch(self.run_id, params=self._parameters(settings))
        except Exception as error:
            raise _unreachable("mlflow", error, "check track.mlflow.uri") from None

    def _create(self, config: MlflowConfig, folder: Path, run_name: str) -> str:
        found = self._client.get_experiment_by_name(config.experiment)
        if found is not None:
            experiment = found.experiment_id
        else:
            place = None if config.uri else (folder / "mlflow").resolve().as_uri()
            experiment = self._client.create_experiment(config.experiment, artifact_location=place)
        return str(self._client.create_run(experiment, run_name=run_name).info.run_id)

    def _parameters(self, settings: Mapping[str, Any]) -> list[Any]:
        # The longest value that its servers take.
        most = 6000
        flat = flatten(settings).items()
        return [self._entities.Param(allowed(key), value[:most]) for key, value in flat][:100]

    def log_scores(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Take the scores of an epoch, counted from 1."""
        now, metric = round(time.time() * 1000), self._entities.Metric
        values = [metric(allowed(name), value, now, epoch) for name, value in scores.items()]
        with quiet_mlflow():
            self._client.log_batch(self.run_id, metrics=values)

    def log_drawing(self, epoch: int, drawing: Drawing) -> None:
        """Take pictures of an image."""
        with quiet_mlflow():
            self._client.log_text(self.run_id, drawing.caption, f"{drawing.name}/image.txt")
            for name, picture in drawing.panels.items():
                place = f"{drawing.name}/{name.replace('/', ' ')}.png"
                self._client.log_image(self.run_id, picture, artifact_file=place)

    def close(self, ending: Ending) -> None:
        """Say how the run ended."""
        status = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}[ending]
        with quiet_mlflow():
            self._client.set_terminated(self.run_id, status)


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's messages about its tables off the screen."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Its tables are defined in ways that newer releases of SQLAlchemy deprecate.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _unreachable(key: str, error: Exception, remedy: str) -> ValueError:
    reason = one_line(error)
    return ValueError(
        f"track.{key}: could not be opened: {type(error).__name__}: {reason:.200}; {remedy}"
    )


def allowed(name: str) -> str:
    """Return a name with what MLflow does not take replaced.

    >>> allowed("dice/finger-1 (thumb)")
    'dice/finger-1 _thumb_'
    """
    return re.sub(r"[^\w./ \-]", "_", name)


def flatten(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested settings as `key.sub` -> text.

    >>> flatten({"optim": {"lr": 0.1}, "size": [64, 64]})
    {'optim.lr': '0.1', 'size': '[64, 64]'}
    """
    flat: dict[str, str] = {}
    for key, value in settings.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = str(value)
    return flat
