"""What every family does whose networks find instances and are trained by our own loop."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from shapely.geometry import MultiPolygon, box

import configs
from converters.types import Instance, LabelSpace, Sample
from fusion.metrics.annotated import score_prediction
from fusion.metrics.scores import Scores
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.data.bits import BitMask
from zoo.data.objects import ObjectBits, ObjectItems
from zoo.families import load_family
from zoo.families.activation_checkpointing import checkpoint_blocks
from zoo.run_files.checkpoints import BEST, LAST, read_weights

pytestmark = pytest.mark.slow

NAMES = ("maskrcnn", "mask2former", "oneformer", "eomt", "rfdetr")
every = pytest.mark.parametrize("name", NAMES)
Make = Callable[..., Any]


@pytest.mark.parametrize("name", [*NAMES, "yolo"])
def test_a_family_is_found_by_its_name(name: str) -> None:
    assert load_family(name).kind == "instance"


# --- what it learns from


@every
@pytest.mark.parametrize("drawn", [0, 1], ids=["no image with bones", "one image with bones"])
def test_images_without_bones_teach_too(build: Make, draw: Make, name: str, drawn: int) -> None:
    shown = draw()
    shown.masks[drawn:] = False
    network = build(name).train()
    loss = network.loss(shown.images, shown.masks, shown.classes)
    loss.backward()
    # Of processes that train together, each has to give every weight one.
    assert [k for k, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


@every
def test_a_bone_of_one_pixel(build: Make, draw: Make, name: str) -> None:
    shown = draw()
    shown.masks[:] = False
    shown.masks[:, 1, 63, 95] = True
    loss = build(name).train().loss(shown.images, shown.masks, shown.classes)
    assert torch.isfinite(loss)


@every
def test_colours_are_seen(build: Make, draw: Make, name: str) -> None:
    shown = draw()
    images = shown.images.repeat(1, 3, 1, 1).requires_grad_()
    build(name, in_channels=3).train().loss(images, shown.masks, shown.classes).backward()
    assert images.grad is not None
    assert not torch.allclose(images.grad[:, 0], images.grad[:, 1], atol=0)


@every
@pytest.mark.learns
def test_two_images_are_learned_by_heart(
    learn: Make, find: Make, finders: Any, pixels: Make, iou: Make, name: str, exceeds: Make
) -> None:
    learned = learn(name)
    smaller = learned.losses[0] / np.mean(learned.losses[-5:])
    exceeds("the loss is this many times smaller", smaller, 4)
    seen = find(learned.network, learned.drawn.images)
    for found, masks in zip(seen, learned.drawn.masks, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, ((score, mask),) in found.items():
            exceeds("score", score, finders[name].score)
            exceeds("IoU", iou(pixels(mask), masks[label].numpy()), 0.85)


@pytest.mark.long
@every
@pytest.mark.learns
def test_objects_of_a_class_are_learned_and_found_one_by_one(
    learn: Make,
    find: Make,
    finders: Any,
    pixels: Make,
    iou: Make,
    label_file: Make,
    name: str,
    exceeds: Make,
) -> None:
    """Two of them share pixels: as one mask they could not be told apart."""
    learned = learn(name, (0, 0, 1), labels=label_file(once=False))
    for found, masks in zip(
        find(learned.network, learned.drawn.images), learned.drawn.masks, strict=True
    ):
        sure = [pixels(mask) for score, mask in found[0] if score > finders[name].score]
        for mask in masks[:2]:
            exceeds("IoU", max((iou(mask.numpy(), own) for own in sure), default=0.0), 0.8)
        exceeds("IoU", iou(pixels(found[1][0][1]), masks[2].numpy()), 0.8)
        for evidence in found.values():
            scores = [score for score, _ in evidence]
            assert scores == sorted(scores, reverse=True)


@every
@pytest.mark.learns
def test_nothing_below_the_floor(
    build: Make, learn: Make, find: Make, finders: Any, name: str
) -> None:
    network = build(name, **finders[name].sure, conf=0.9999)
    network.load_state_dict(learn(name).network.state_dict())
    noise = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    assert find(network.eval(), noise) == [{}, {}]


@every
def test_gradient_checkpointing_computes_the_same(
    build: Make, draw: Make, finders: Any, name: str
) -> None:
    family, shown, found = load_family(name), draw(), []
    for saves_memory in (False, True):
        torch.manual_seed(3)
        network = build(name).train()
        if saves_memory:
            blocks = family.blocks(network)
            assert len(blocks) >= finders[name].blocks
            checkpoint_blocks(blocks)
        torch.manual_seed(4)
        network.loss(shown.images, shown.masks, shown.classes).backward()
        gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
        found.append((gradients, dict(network.named_buffers())))
    for plain, saving in zip(*found, strict=True):
        assert plain.keys() == saving.keys()
        assert all(torch.equal(plain[key], saving[key]) for key in plain)


# --- objects as bits

WASTE = LabelSpace("waste", ("cup", "bag", "tin"))


def _sample(*names: str) -> Sample:
    """A row of squares; the last one has a second part, further down."""
    shapes: list[Any] = [box(10 * n, 0, 10 * n + 5, 5) for n in range(len(names))]
    shapes[-1] = MultiPolygon([shapes[-1], box(0, 20, 5, 25)])
    instances = tuple(Instance(n, shape) for n, shape in zip(names, shapes, strict=True))
    return Sample("a", Path("a.png"), (30, 60), instances)


def test_bits_for_as_many_objects_as_an_image_has() -> None:
    samples = [_sample("cup", "cup", "bag"), _sample("bag", "cup", "bag", "bag")]
    places = ObjectBits.of(samples, WASTE)
    assert places.classes == (0, 0, 1, 1, 1, 2)
    assert places.bits(samples[0], WASTE) == [0, 1, 2]
    assert places.bits(samples[1], WASTE) == [2, 0, 3, 4]


def test_an_objects_parts_are_one(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 60), np.uint8))
    sample = replace(_sample("cup", "cup"), image=tmp_path / "a.png")
    places = ObjectBits.of([sample], WASTE)
    items = ObjectItems([sample], WASTE, places)
    crops = dict(items[0].mask.crops())
    assert {bit: crop.area for bit, crop in crops.items()} == {0: 36, 1: 72}
    assert isinstance(items[0].mask, BitMask)
    other = ObjectItems([sample], WASTE, ObjectBits((0, 0, 0, 1, 2)))
    assert items.stamp(0) != other.stamp(0)


def _pieces(toys: Any, name: str) -> list[Sample]:
    """The toys, all of whose tiles are of one class."""
    return [
        replace(s, instances=tuple(Instance(name, i.geometry) for i in s.instances))
        for s in toys.samples
    ]


@every
@pytest.mark.learns
def test_a_run_learns_objects_of_a_class(
    configure: Make, make_job: Make, toys: Any, label_file: Make, name: str
) -> None:
    file = label_file(once=False, of_toys=True)
    config = configure(name, labels=file, epochs=1, conf=0.0)
    samples = _pieces(toys, toys.labels.names[0])
    job = replace(make_job(train=samples[:4], val=samples[4:]), labels=LabelSpace.load(file))
    family = load_family(name)
    family.train(config, job)
    found = list(family.predict(job.out, config, samples[:1], PredictOptions()))
    assert any(len(evidence) > 1 for evidence in found[0].masks.values())


@every
def test_samples_are_not_mixed_where_objects_would_be(
    configure: Make, make_job: Make, toys: Any, label_file: Make, name: str
) -> None:
    file = label_file(once=False, of_toys=True)
    config = configure(name, labels=file, augment=[{"name": "CutMix", "p": 1.0}])
    samples = _pieces(toys, toys.labels.names[0])
    job = replace(make_job(train=samples[:4], val=samples[4:]), labels=LabelSpace.load(file))
    with pytest.raises(ValueError, match="expected neither CopyPaste nor CutMix"):
        load_family(name).train(config, job)


# --- runs


def _assert_same_weights(first: Path, second: Path) -> None:
    for name in (LAST, BEST):
        a, b = read_weights(first / name), read_weights(second / name)
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _kill_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if done == step and total > 1:
            raise Killed

    return progress


@every
def test_the_same_seed_and_an_interruption_give_the_same_weights(
    configure: Make, make_job: Make, finders: Any, name: str
) -> None:
    changes: dict[str, Any] = {"augment": [{"name": "HorizontalFlip", "p": 0.5}]}
    if "network" in finders[name].tiny:
        rate = "drop_path_rate" if name == "eomt" else "dropout"
        changes["network"] = {**finders[name].tiny["network"], rate: 0.1}
    family, config = load_family(name), configure(name, **changes)
    whole, cut = make_job("whole"), make_job("cut", progress=_kill_at(3))
    family.train(config, whole)
    torch.rand(3)
    with pytest.raises(Killed):
        family.train(config, cut)
    family.train(config, make_job("cut"))
    _assert_same_weights(whole.out, cut.out)


@every
def test_scores_are_those_of_predictions(
    configure: Make, make_job: Make, toys: Any, label_file: Make, name: str
) -> None:
    labels = LabelSpace.load(label_file(of_toys=True))
    job, config = replace(make_job(), labels=labels), configure(name, epochs=1, conf=0.0)
    family = load_family(name)
    family.train(config, job)
    found = list(family.predict(job.out, config, job.val, PredictOptions(batch=1)))
    scored = [score_prediction(p, s, labels) for p, s in zip(found, job.val, strict=True)]
    (row,) = csv.DictReader((job.out / "metrics.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["val_dice"]) == pytest.approx(Scores(labels, scored).mean(), abs=2e-6)


@every
@pytest.mark.learns
def test_an_average_of_weights_finds_bones_too(configure: Make, make_job: Make, name: str) -> None:
    job, config = make_job(), configure(name, epochs=1, ema=0.9, conf=0.0)
    family = load_family(name)
    family.train(config, job)
    assert all(p.masks for p in family.predict(job.out, config, job.val, PredictOptions()))


@every
@pytest.mark.learns
def test_predictions_are_in_the_images_own_frame(
    configure: Make, make_job: Make, toys: Any, name: str
) -> None:
    job, config = make_job(), configure(name, epochs=1, size=[64, 64], conf=0.0)
    family = load_family(name)
    family.train(config, job)
    found = list(family.predict(job.out, config, toys.samples, PredictOptions(batch=4)))
    assert [p.key for p in found] == [s.key for s in toys.samples]
    assert {(p.kind, p.size_hw) for p in found} == {("instance", (96, 64))}
    assert any(p.masks for p in found)
    # An empty row and column may lie around the cells of a box.
    outside = 1 / 16 if name == "maskrcnn" else 0.0
    for prediction in found:
        assert all(len(evidence) == 1 for evidence in prediction.masks.values())
        for _, rank, score, mask in prediction.rows():
            x, y, width, height = mask.box_xywh
            assert rank == 0
            assert 0 < score <= 1
            assert min(x + width * outside, y + height * outside) >= 0
            assert x + width * (1 - outside) <= 64 + 1
            assert y + height * (1 - outside) <= 96 + 1


@every
def test_what_other_families_have_is_refused(configure: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"tta: the family '{name}' predicts without"):
        list(
            load_family(name).predict(tmp_path, configure(name), [], PredictOptions(tta=("hflip",)))
        )


# --- configs


@pytest.mark.parametrize(
    ("name", "config"),
    [(name, config) for name in NAMES for config in configs.names(name)],
)
def test_every_shipped_config_trains_and_predicts(
    toys: Any, make_job: Make, finders: Any, label_file: Make, name: str, config: str
) -> None:
    """With the smallest network instead of its own, and no download."""
    family = load_family(name)
    raw = yaml.safe_load(configs.find(name, config).read_text(encoding="utf-8"))
    small = {"size": [64, 64], "epochs": 1, "batch": 2, "accumulate": 1, "workers": 0}
    small |= {"cache": "none", "device": "cpu", "labels": label_file(of_toys=True)}
    shrunk = check_config(
        family.Config, raw | {"pretrained": None} | finders[name].tiny | small, config
    )
    job = make_job()
    family.train(shrunk, job)
    assert len(list(family.predict(job.out, shrunk, toys.samples, PredictOptions()))) == 6


@every
@pytest.mark.parametrize(
    ("key", "value"),
    [("loss", {"dice": 1.0}), ("window", [64, 64]), ("soft_targets", True), ("swa", {})],
)
def test_keys_of_others_are_unknown(configure: Make, name: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"unknown key '{key}'.*; known are labels, seed"):
        configure(name, **{key: value})


@every
def test_configs_come_back_as_they_are_written(configure: Make, name: str) -> None:
    config = configure(name)
    written = config.model_dump(mode="json")
    assert {"loss", "window", "focus", "smoothing"}.isdisjoint(written)
    assert check_config(type(config), written, "again") == config
