from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import AfterValidator, model_validator

import configs
from zoo.config import (
    RunConfig,
    StrictModel,
    apply_changes,
    check_config,
    dump_config,
    load_config,
)
from zoo.synonyms import section_of


class Part(StrictModel):
    rate: float = 0.1
    names: tuple[str, ...] = ()


class Swa(StrictModel):
    start: float = 0.5


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("expected an even number")
    if number < 0:
        raise ValueError(f"even: expected it above 0, found {number}")
    return number


class Whole(RunConfig):
    size: tuple[int, int] = (64, 32)
    even: Annotated[int, AfterValidator(_even)] = 2
    part: Part = Part()
    swa: Swa | None = None

    @model_validator(mode="after")
    def _not_below_zero(self) -> Whole:
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, found {self.seed}")
        return self

    options: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("size: [96, 64]\npart: {rate: 0.5}\n")
    return path


def test_values_come_from_file_changes_and_defaults(file: Path) -> None:
    found = load_config(Whole, "smp", str(file), ["part.names=[a,b-1]", "seed=3"])
    assert found == Whole(size=(96, 64), part=Part(rate=0.5, names=("a", "b-1")), seed=3)


@pytest.mark.parametrize(("changes", "expected"), [([], "failed"), (["notice.on=[idle]"], "idle")])
def test_a_notice_is_told_on_what(tmp_path: Path, changes: list[str], expected: str) -> None:
    # The key `on` is the truth value for a reader of YAML 1.1.
    (tmp_path / "mine.yaml").write_text('notice: {url: "env:HOOK", on: [failed]}\n')
    found = load_config(Whole, "smp", str(tmp_path / "mine.yaml"), changes)
    assert found.notice is not None
    assert found.notice.on == (expected,)


def test_later_changes_win(file: Path) -> None:
    assert load_config(Whole, "smp", str(file), ["seed=1", "seed=2"]).seed == 2


def test_values_are_read_as_yaml(file: Path) -> None:
    changes = ["options.a=null", "options.b=1e-3", "options.c.d=yes", "options.e=text"]
    found = load_config(Whole, "smp", str(file), changes).options
    assert found == {"a": None, "b": 1e-3, "c": {"d": True}, "e": "text"}


def test_nothing_is_changed_in_place() -> None:
    raw = {"part": {"rate": 1}}
    assert apply_changes(raw, ["part.rate=2"]) == {"part": {"rate": 2}}
    assert raw == {"part": {"rate": 1}}


def test_a_config_never_changes() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Whole().seed = 1


def test_a_dumped_config_comes_back(tmp_path: Path) -> None:
    config = Whole(part=Part(names=("ä", "x_1")), options={"a": [1, None]})
    (tmp_path / "out.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(Whole, "smp", str(tmp_path / "out.yaml")) == config


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"sise": 1},
            r"'sise' \(did you mean 'size'\?\); known are labels, seed, .* size, even, part",
        ),
        ({"zzz": 1}, r"unknown key 'zzz'; known are labels"),
        (
            {"part": {"rat": 1}},
            r"file: .* 'part\.rat' .*'part\.rate'\?\); known are rate, names$",
        ),
        ({"swa": {"begin": 1}}, r"file: unknown key 'swa\.begin'; known are start$"),
        ({"even": 3}, r"^file: 'even': expected an even number, found 3$"),
        ({"even": -2}, r"^file: even: expected it above 0, found -2$"),
        ({"seed": -1}, r"^file: seed: expected at least 0, found -1$"),
        ({"labels": "hands"}, r"^file: labels config 'hands': no such file, .*: hand_bones[^{]*$"),
        ({"part": {"rate": "fast"}}, r"file: 'part\.rate': .*number.*, found 'fast'"),
        ({"size": [1, 2, 3]}, r"file: 'size': expected at most 2 values, found 3"),
        ({"part": 3}, r"file: 'part': .*, found 3"),
    ],
)
def test_bad_values_name_their_key(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(Whole, raw, "file")


def test_every_bad_key_has_a_line() -> None:
    with pytest.raises(ValueError, match="unknown key") as caught:
        check_config(Whole, {"a": 1, "b": 2, "seed": "x"}, "file")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("change", ["seed", "=3", ""])
def test_a_change_without_key_or_value(file: Path, change: str) -> None:
    with pytest.raises(ValueError, match=r"expected key\.sub=value"):
        load_config(Whole, "smp", str(file), [change])


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "just text"])
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.yaml: expected") as caught:
        load_config(Whole, "smp", str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_what_is_shipped() -> None:
    with pytest.raises(ValueError, match=r"smp config 'demmo': .* only: .*demo, "):
        load_config(Whole, "smp", "demmo")


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in ("smp", "segformer") for n in configs.names(k)]
)
def test_shipped_configs_say_what_they_are_for(kind: str, name: str) -> None:
    text = configs.find(kind, name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize(
    ("change", "meant"),
    [
        ("imgsz=512", "size"),
        ("lr=1e-3", "optim.lr"),
        ("optim.learning_rate=1e-3", "optim.lr"),
        ("batch_size=4", "batch"),
        ("backbone=x", "encoder"),
        ("model=unet", "architecture"),
        ("model=x.pt", "init"),
        ("wieghts=x", "init"),
        ("dropout=0.5", "options"),
        ("gradient_accumulation_steps=2", "accumulate"),
        ("decoder_channels=[8]", "options.decoder_channels"),
        ("Epochs=2", "epochs"),
        ("epoch=2", "epochs"),
    ],
)
def test_keys_of_other_programs_are_answered_with_ours(change, meant):
    from zoo.families import load_family

    with pytest.raises(ValueError, match=rf"^{re.escape(change)}: .* mean '{meant}'\?\)"):
        load_config(load_family("smp").Config, "smp", "demo", [change])


@pytest.mark.parametrize(
    ("family", "change", "meant"),
    [
        ("yolo", "size=512", "imgsz"),
        ("yolo", "dropout=0.5", "extra.dropout"),
        ("yolo", "learning_rate=1", "lr0"),
        ("segformer", "dropout=0.5", "network.classifier_dropout_prob"),
        ("mask2former", "dropout=0.5", "network.dropout"),
        ("maskrcnn", "encoder=resnet18", "backbone"),
        ("torchvision", "weights_backbone=x", "pretrained"),
        ("monai", "roi_size=[64,64]", "window"),
        ("huggingface", "num_train_epochs=3", "epochs"),
    ],
)
def test_every_family_answers_with_its_own_keys(family, change, meant):
    from zoo.families import load_family

    model = load_family(family).Config
    with pytest.raises(ValueError, match=rf"^{re.escape(change)}: .* mean '{meant}'\?\)"):
        load_config(model, family, next(iter(configs.names(family))), [change])
    # The advice can be followed: the key is there, or any key may be.
    *above, last = meant.split(".")
    section = section_of(model, above)
    assert (last in section.model_fields) if section else above[0] in model.model_fields


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["size=512"], r"^size=512: .* found 512: write size=\[512,512\]$"),
        (["seed=1", "seed=-1"], r"^seed=-1: seed: expected at least 0"),
        (["part.rate=fast"], r"^part\.rate=fast: 'part\.rate': .*found 'fast'$"),
        (["even=2"], r"^\S+mine\.yaml: unknown key 'sise'"),
        (["notice.url=hidden"], r"^notice\.url=\.\.\.: 'notice\.url': .*\n\S+mine\.yaml: unknown"),
    ],
)
def test_who_wrote_a_bad_value_is_blamed(file, changes, message):
    if "yaml" in message:
        file.write_text("sise: 3\n")
    with pytest.raises(ValueError, match=message) as caught:
        load_config(Whole, "smp", str(file), changes)
    assert "hidden" not in str(caught.value)


def test_null_options_are_none():
    from zoo.families import load_family

    assert load_config(load_family("smp").Config, "smp", "demo", ["options=null"]).options == {}
