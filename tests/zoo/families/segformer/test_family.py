from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import converters
from converters.formats.hf import dataset as data_format
from converters.splits.split import make_split
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.families import load_family
from zoo.families.segformer.config import SegFormerConfig
from zoo.families.segformer.family import FAMILY
from zoo.run_files.checkpoints import LAST, read_weights

pytestmark = pytest.mark.slow

TINY = {
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
    "decoder_hidden_size": 16,
}


@pytest.fixture
def tiny(toys: Any) -> Callable[..., SegFormerConfig]:
    def make(**changes: Any) -> SegFormerConfig:
        raw = {
            "labels": str(toys.labels_file),
            "size": [96, 64],
            "epochs": 2,
            "batch": 2,
            "network": TINY,
        }
        return check_config(SegFormerConfig, raw | changes, "test")

    return make


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """What a SegFormer of another task leaves on disk."""
    config = SegformerConfig(**TINY, num_labels=150, num_channels=3)
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "mit")
    return tmp_path / "mit"


def test_the_family_is_found_by_name() -> None:
    family = load_family("segformer")
    assert (family.kind, family.Config) == ("semantic", SegFormerConfig)


def test_logits_are_a_quarter(tiny: Callable[..., Any]) -> None:
    network = FAMILY.build(tiny(), 9).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 64, 96)).shape == (2, 9, 16, 24)


def test_samples_are_converted_once(
    tiny: Callable[..., Any], make_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    FAMILY.train(tiny(epochs=1), make_job())
    calls: list[Any] = []
    monkeypatch.setattr(data_format, "write", lambda *a, **k: calls.append(a))
    FAMILY.train(tiny(epochs=2), make_job())
    assert calls == []


def test_a_given_data_set_is_the_same_as_a_converted_one(
    tiny: Callable[..., Any], make_job: Callable[..., Any], toys: Any, tmp_path: Path
) -> None:
    split = make_split(toys.samples, folds=3)
    held_out = split.val(1)
    train = [s for s in toys.samples if s.key not in held_out]
    val = [s for s in toys.samples if s.key in held_out]
    first = make_job("first", train=train, val=val, split=split, fold=1)
    FAMILY.train(tiny(), first)
    converters.write(
        *(toys.samples, tmp_path / "hf"),
        format="segformer",
        labels=toys.labels,
        split=split,
        fold=1,
    )
    second = make_job("second", train=(), val=())
    second = replace(second, data=tmp_path / "hf", data_format="segformer")
    FAMILY.train(tiny(), second)
    a, b = read_weights(first.out / LAST), read_weights(second.out / LAST)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (second.out / "data").exists()


def test_a_data_set_of_other_classes(
    tiny: Callable[..., Any], make_job: Callable[..., Any], toys: Any, tmp_path: Path
) -> None:
    names = replace(toys.labels, names=tuple(reversed(toys.labels.names)))
    converters.write(toys.samples, tmp_path / "hf", format="segformer", labels=names)
    job = replace(make_job(), data=tmp_path / "hf", data_format="segformer")
    with pytest.raises(ValueError, match="the 9 classes of 'toys', found 9: tile-8, tile-7"):
        FAMILY.train(tiny(), job)


def test_dropout_is_the_same_after_an_interruption(
    tiny: Callable[..., Any], make_job: Callable[..., Any]
) -> None:
    def progress(done: int, total: int, note: str) -> None:
        if done == 3 and note.startswith("epoch"):
            raise KeyError("cut")

    config = tiny(network={**TINY, "drop_path_rate": 0.3, "classifier_dropout_prob": 0.3})
    whole = make_job("whole")
    FAMILY.train(config, whole)
    with pytest.raises(KeyError):
        FAMILY.train(config, make_job("cut", progress=progress))
    FAMILY.train(config, make_job("cut"))
    a, b = read_weights(whole.out / LAST), read_weights(whole.out.parent / "cut" / LAST)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_pretrained_weights_are_taken_but_for_the_head(
    tiny: Callable[..., Any], pretrained: Path
) -> None:
    config = tiny(network=None, pretrained=str(pretrained), channels=3)
    mine = FAMILY.build(config, 9).state_dict()
    theirs = read_weights(pretrained / "model.safetensors")
    assert mine["network.decode_head.classifier.weight"].shape[0] == 9
    same = [k for k in mine if not k.startswith("network.decode_head.classifier")]
    first = next(k for k in same if k.endswith("weight") and mine[k].ndim == 4)
    assert mine[first].shape[1] == 3
    matched = [v for v in theirs.values() if any(torch.equal(v, mine[k]) for k in same)]
    assert len(matched) > 0.9 * len(same)


def test_a_pretrained_run_predicts_without_the_pretrained_weights(
    tiny: Callable[..., Any], pretrained: Path, make_job: Callable[..., Any], toys: Any
) -> None:
    import shutil

    config = tiny(network=None, pretrained=str(pretrained), channels=3, epochs=1)
    job = make_job()
    FAMILY.train(config, job)
    shutil.rmtree(pretrained)
    assert len(list(FAMILY.predict(job.out, config, toys.samples, PredictOptions()))) == 6


def test_pretrained_weights_that_cannot_be_had(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny(network=None, pretrained=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"pretrained '.*nowhere': could not get") as caught:
        FAMILY.build(config, 3)
    assert "pretrained=null" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_its_dimensions(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"network\.json: expected the network's dimensions"):
        FAMILY.rebuild(tmp_path, tiny(), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, "either 'pretrained' or 'network', found both or none"),
        ({"pretrained": "x"}, "either 'pretrained' or 'network', found both or none"),
        ({"network": {"depth": [1, 1, 1, 1]}}, "unknown key 'network.depth'"),
        ({"network": {"depths": [1, 1, 1]}}, "'network.depths.3': expected a value, found none"),
        ({"channels": 2}, "'channels': expected 1 or 3"),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_heads_that_do_not_divide_the_channels(tiny: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"that num_attention_heads .* divide"):
        FAMILY.build(tiny(network={**TINY, "num_attention_heads": [3, 2, 2, 2]}), 3)


@pytest.mark.parametrize("fold", [0, 1])
def test_the_data_set_s_own_division_is_that_of_the_fold(
    tiny: Any, toys: Any, make_job: Any, tmp_path: Path, cut_toys: Any, fold: int
) -> None:
    split = cut_toys(2)
    root = tmp_path / "hf"
    converters.write(toys.samples, root, format="segformer", labels=toys.labels, split=split)
    job = replace(make_job(), data=root, data_format="segformer", split=split, fold=fold)
    config = tiny()
    if fold:
        with pytest.raises(ValueError, match="expected to hold out fold 1, found 4 of its images"):
            FAMILY.open_items(config, job)
    else:
        train, val = FAMILY.open_items(config, job)
        assert (len(train), len(val)) == (4, 2)
