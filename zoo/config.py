"""Typed configs: YAML files checked key by key; `key.sub=value` changes from a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

import configs
from converters.errors import one_line
from converters.strict_yaml import read_yaml
from converters.types import LabelSpace
from zoo.source import DataSource
from zoo.synonyms import meant_key, section_of
from zoo.validation import Fault, find_faults


class StrictModel(BaseModel):
    """A part of a config: unknown keys and wrong types are errors; it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class WandbConfig(StrictModel):
    """How scores go to Weights & Biases.

    Attributes:
        project: where the run is listed.
        entity: whose project it is; None leaves it to the account.
        mode: `offline` writes files that `wandb sync` can send later; `online` sends at once.
        tags: to find the run by.
    """

    project: str = Field(min_length=1)
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"
    tags: tuple[str, ...] = ()


class MlflowConfig(StrictModel):
    """How scores go to MLflow.

    Attributes:
        uri: of a server or a database, such as `sqlite:///scores.db`; None is a database in the
            run folder.
        experiment: where the run is listed.
    """

    uri: str | None = None
    experiment: str = Field(default="maskzoo", min_length=1)


class TrackConfig(StrictModel):
    """Who is told a run's scores beside `metrics.csv`; nobody by default.

    Attributes:
        tensorboard: write event files into the run folder.
        wandb: Weights & Biases.
        mlflow: MLflow.
        pictures: how many of the worst validation images are drawn when the run ends. They go where
            the scores go, to a server too: radiographs are a patient's.
    """

    tensorboard: bool = False
    wandb: WandbConfig | None = None
    mlflow: MlflowConfig | None = None
    pictures: int = Field(default=0, ge=0)


Event = Literal["finished", "failed", "idle", "disk"]


class NoticeConfig(StrictModel):
    """What is posted to a chat, in the format of Slack's incoming webhooks.

    Attributes:
        url: of the webhook; `env:NAME` reads it from an environment variable. It is a secret, and
            never written anywhere.
        on: what is told: the run `finished` or `failed`, its GPUs are `idle`, the `disk` is full.
        idle_below: percent of utilisation below which a GPU counts as idle.
        idle_minutes: how long it has to be.
        disk_below_gb: free space at the run folder, in 10^9 bytes, below which it is told.
    """

    url: SecretStr
    on: tuple[Event, ...] = ("finished", "failed", "idle", "disk")
    idle_below: float = Field(default=5.0, gt=0, le=100)
    idle_minutes: float = Field(default=10.0, gt=0)
    disk_below_gb: float = Field(default=10.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _key_on(cls, given: Any) -> Any:
        # In YAML 1.1 the key `on` is the truth value.
        if not isinstance(given, dict) or True not in given:
            return given
        return {
            "on": given[True],
            **{key: value for key, value in given.items() if key is not True},
        }

    @field_validator("url")
    @classmethod
    def _web_address(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("env:", "https://", "http://")):
            raise ValueError("expected env:NAME or an address that begins with https://")
        return url


@dataclass(frozen=True)
class Workload:
    """Where a run computes, and for how long, as the keys of these names say in every config.

    The defaults are those of a config without the key.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        devices: how many of that kind, in each computer.
        num_nodes: how many computers.
        epochs: passes over the training samples; 0 where they are not counted.
    """

    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    epochs: int = 0

    @property
    def ranks(self) -> int:
        """How many processes train together, one a device."""
        return self.devices * self.num_nodes


def as_space(given: Any) -> LabelSpace:
    """Return the label space that a config's key `labels` says: a name, a file, or all of it."""
    if isinstance(given, LabelSpace):
        return given
    if isinstance(given, dict):
        return LabelSpace.of_record(given)
    return LabelSpace.load(str(given))


def _as_plain(labels: LabelSpace) -> str | dict[str, Any]:
    is_shipped = labels.name in configs.names("labels")
    return labels.name if is_shipped and labels == LabelSpace.load(labels.name) else labels.record()


# A label space in a config: a shipped name, a YAML file, or all that such a file holds. Written
# down is all of it, but for a shipped one.
Labels = Annotated[LabelSpace, PlainValidator(as_space), PlainSerializer(_as_plain)]


def default_labels() -> LabelSpace:
    """Return the label space of a config that is about no data set, as when models are listed."""
    return LabelSpace.load(configs.DEFAULT_LABELS)


class RunConfig(StrictModel):
    """What every family's config has.

    A config is put together from groups of keys, each of which is a `StrictModel` by itself; what
    needs keys of several groups is checked when all of them are read. So the order of the groups
    among a config's bases decides in which order keys are written, and nothing else.

    Attributes:
        labels: label space; `zoo train` takes the data set's own where a config has none.
        seed: of weights, order, and augmentation.
        track: who is told the scores; not part of what the run is, so it may change when a run
            continues, and is not written down in it.
        notice: what is posted to a chat; likewise.
        note: what the run is to find out, in a few words, such as the hypothesis; `zoo runs` shows
            it. Likewise: it is kept beside the config, in `provenance.json`.
        own_format: the format whose data sets the family reads by itself, with the division inside;
            its job holds no samples then. "" is none.
    """

    own_format: ClassVar[str] = ""

    labels: Labels = Field(default_factory=default_labels)
    seed: int = 0
    track: TrackConfig = Field(default=TrackConfig(), exclude=True)
    notice: NoticeConfig | None = Field(default=None, exclude=True)
    note: str = Field(default="", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _takes_images_alone(cls, given: Any) -> Any:
        is_asked = isinstance(given, dict) and given.get("metadata") is not None
        if is_asked and "metadata" not in cls.model_fields:
            raise ValueError(
                "metadata: expected in a config of a semantic family (smp, segformer, nets, ...), "
                "whose networks can be shown what a table says of patients; this family's cannot: "
                "remove it"
            )
        return given

    @property
    def workload(self) -> Workload:
        """Where the run computes, and for how long."""
        keys = [entry.name for entry in fields(Workload) if entry.name in type(self).model_fields]
        return Workload(**{key: getattr(self, key) for key in keys})

    @classmethod
    def further_key(cls, word: str) -> str:
        """Return where a key of the family's library goes that has no place of its own; "" is none.

        Args:
            word: the key.
        """
        return ""


Model = TypeVar("Model", bound=StrictModel)
AnyRunConfig = TypeVar("AnyRunConfig", bound=RunConfig)


def load_config(
    model: type[Model],
    kind: str,
    name: str,
    changes: Sequence[str] = (),
    data: DataSource | None = None,
) -> Model:
    """Read a config by shipped name or file, apply changes, and check it.

    Args:
        model: the config's type.
        kind: folder below `configs`, such as `smp`.
        name: shipped name or path of a YAML file.
        changes: `key.sub=value` texts, later ones win.
        data: the `DataSource` that gives what a config of a run leaves open.

    Raises:
        ValueError: no such config, not YAML, or for each bad key one line with its path.
    """
    path = configs.find(kind, name)
    raw = read_config(path)
    changed = keep_steps(raw, apply_changes(raw, changes))
    return complete_config(model, changed, str(path), data, changes)


def read_config(path: Path) -> dict[str, Any]:
    """Read a config's keys and values as they stand in its file, unchecked.

    Raises:
        ValueError: not YAML, or no mapping.
    """
    raw = read_yaml(path, "a config") or {}
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values, found {type(raw).__name__}")
    return raw


def complete_config(
    model: type[Model],
    raw: Mapping[str, Any],
    where: str,
    data: DataSource | None,
    changes: Sequence[str] = (),
) -> Model:
    """Build a config from plain values, and from the data set what they leave open.

    Args:
        model: the config's type.
        raw: keys and values.
        where: they come from, for messages.
        data: gives what they leave open.
        changes: `key.sub=value` texts that are among them, for messages.

    Raises:
        ValueError: one line for each bad key.
    """
    full = dict(raw)
    if data is not None and full.get("labels") is None:
        full["labels"] = data.classes
    if data is not None and "in_channels" in model.model_fields and "in_channels" not in full:
        full["in_channels"] = 3 if data.is_colored else 1
    return check_config(model, full, where, changes)


AUTO = "auto"


def keep_steps(before: Mapping[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return a changed config that keeps its images a step where a change says `batch: auto`.

    >>> keep_steps({"batch": 2, "accumulate": 4}, {"batch": "auto", "accumulate": 4})
    {'batch': 'auto', 'effective_batch': 8}
    """
    batch = before.get("batch")
    if after.get("batch") != AUTO or "effective_batch" in after or not isinstance(batch, int):
        return after
    kept = {key: value for key, value in after.items() if key not in ("accumulate", "nbs")}
    images = after.get("nbs") or batch * int(after.get("accumulate", 1))
    return {**kept, "effective_batch": images}


def read_auto_batch(raw: Any) -> Any:
    """Return a config's plain values with numbers for `batch: auto`: all images of a step.

    Raises:
        ValueError: `batch: auto` without the key `effective_batch`, or that one beside another
            batch.
    """
    if not isinstance(raw, dict) or (raw.get("batch") != AUTO and not raw.get("effective_batch")):
        return raw
    wanted = raw.get("effective_batch")
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ValueError(
            "effective_batch: expected beside batch: auto how many images the optimizer takes at "
            f"a time, found {wanted!r:.40}"
        )
    if raw.get("batch", AUTO) not in (AUTO, wanted) or raw.get("accumulate", 1) != 1:
        raise ValueError(
            f"effective_batch: expected batch: auto beside it and no accumulate, found batch "
            f"{raw.get('batch')!r:.40}, accumulate {raw.get('accumulate', 1)!r:.40}"
        )
    return {**raw, "batch": wanted}


def apply_changes(raw: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return `raw` with `key.sub=value` changes; values are read as YAML."""
    if not changes:
        return raw
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for change in changes:
        if "=" not in change or change.startswith("="):
            raise ValueError(f"'{change}': expected key.sub=value, found no key or no '='")
    try:
        merged = OmegaConf.merge(OmegaConf.create(raw), OmegaConf.from_dotlist(list(changes)))
    except (OmegaConfBaseException, yaml.YAMLError, TypeError) as error:
        # TypeError: a list in the place of keys and values, or the other way round.
        raise ValueError(f"{' '.join(changes)}: {one_line(error)}") from None
    result = OmegaConf.to_container(merged, resolve=False)
    if not isinstance(result, dict):
        raise ValueError(f"expected keys and values, found {type(result).__name__}")
    return {str(key): value for key, value in result.items()}


def check_config(
    model: type[Model], raw: dict[str, Any], where: str, changes: Sequence[str] = ()
) -> Model:
    """Build a config from plain values.

    Args:
        model: the config's type.
        raw: key -> value.
        where: the file that they come from, for messages.
        changes: those of a command line that are among them.

    Raises:
        ValueError: one line for each bad key.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = (_explain(f, model, _origin(f, changes, where)) for f in find_faults(error))
        raise ValueError("\n".join(lines)) from None


def _origin(fault: Fault, changes: Sequence[str], where: str) -> str:
    """Return the word of the command line that a bad key comes from, or the file."""
    key = [str(part) for part in fault.place]
    if not key and (named := re.match(r"'?([\w.]+)", fault.told)):
        # What several keys make wrong begins with the name of one.
        key = named[1].split(".")
    is_unknown = fault.kind == "extra_forbidden"
    for change in reversed(changes):
        word = change.partition("=")[0]
        parts = word.replace("[", ".").replace("]", "").split(".")
        if key and (parts == key[: len(parts)] or (is_unknown and parts[: len(key)] == key)):
            return change if parts[0] != "notice" else f"{word}=..."
    return where


def _explain(fault: Fault, model: type[BaseModel], where: str) -> str:
    key = fault.key
    if fault.kind == "extra_forbidden":
        return f"{where}: unknown key '{key}'{_known(fault.place, model, fault.value)}"
    if key in ("notice", "notice.url") and fault.kind != "missing":
        told = re.sub(", found .*", "", fault.told, flags=re.DOTALL)
        return f"{where}: '{key}': {told}; what was found is not shown: it is a secret"
    told = fault.told if not key or fault.told.startswith(key) else f"'{key}': {fault.told}"
    return f"{where}: {told}{_spelling(fault)}"


def _spelling(fault: Fault) -> str:
    """Say how a pair of numbers is written, where one was given."""
    if fault.kind != "tuple_type" or len(fault.place) != 1 or type(fault.value) is not int:
        return ""
    return f": write {fault.place[0]}=[{fault.value},{fault.value}]"


def _known(place: Sequence[str | int], model: type[BaseModel], value: Any) -> str:
    """Name the keys that could have been meant by an unknown one."""
    section = section_of(model, place[:-1])
    if section is None:
        return ""
    word = str(place[-1])
    further = section.further_key(word) if issubclass(section, RunConfig) else ""
    near = further or meant_key(word, section, value)
    meant = ".".join([*map(str, place[:-1]), near]) if near else ""
    told = f" (did you mean '{meant}'?)" if meant else ""
    return f"{told}; known are {', '.join(section.model_fields)}"


def load_run_config(
    model: type[AnyRunConfig],
    family: str,
    name: str,
    changes: Sequence[str],
    data: DataSource | None,
) -> AnyRunConfig:
    """Read the config of a run on a data set; the data say what it leaves open.

    These are the classes (`labels`), and whether images are shown in colour (`in_channels`).

    Raises:
        ValueError: as `load_config`, or it names other classes than the user asks for.
    """
    config = load_config(model, family, name, changes, data)
    check_classes(config, data)
    return config


def check_classes(config: RunConfig, data: DataSource | None) -> None:
    """Make sure that a config has the classes that the user asks for.

    Raises:
        ValueError: it names others.
    """
    if data and data.chosen and config.labels != data.chosen:
        raise ValueError(
            f"--labels: expected the classes of the config's key 'labels', '{config.labels.name}', "
            "found others: give one of the two"
        )


def dump_config(config: BaseModel) -> str:
    """Return a config as the YAML text that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
