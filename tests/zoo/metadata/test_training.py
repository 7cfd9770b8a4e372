"""Networks that learn with metadata: what depends on it is learned, and runs are runs as others."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_weights import differing_weights

from converters.masks import class_masks
from converters.types import Sample
from zoo.contract import PredictOptions
from zoo.families.smp.family import FAMILY
from zoo.metadata.columns import FILE
from zoo.metadata.network import MetadataNetwork, tallied
from zoo.run_files.checkpoints import BEST, LAST, RESUME, load_weights, read_weights

pytestmark = pytest.mark.slow
Make = Callable[..., Any]


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _best(out: Path) -> float:
    return max(float(row["val_dice"]) for row in _rows(out))


def _without(samples: list[Sample]) -> list[Sample]:
    return [replace(sample, attributes={}) for sample in samples]


def _planes(out: Path, config: Any, samples: list[Sample], **options: Any) -> torch.Tensor:
    found = FAMILY.predict(out, config, samples, PredictOptions(device="cpu", **options))
    return torch.stack([torch.from_numpy(p.binary("half").full(p.size_hw)) for p in found])


@pytest.mark.learns
def test_what_only_metadata_tells_is_learned_with_it_alone(
    configure: Make, job: Make, people: list[Sample], exceeds: Any
) -> None:
    further = {"epochs": 30, "validate_every": 30}
    seeing = configure({"columns": ["sex"], "dropout": 0.0}, **further)
    with_it, without = job("with"), job("without")
    FAMILY.train(seeing, with_it)
    FAMILY.train(configure({}, **further), without)
    exceeds("dice with it", _best(with_it.out), 0.9)
    # Of two halves that are equally likely nothing better is known than both: Dice 2/3.
    exceeds("what is missing without it", 1 - _best(without.out), 0.25)
    # The same image is another person's when its metadata are.
    woman, man = people[8:10]
    swapped = [replace(woman, attributes=man.attributes), replace(man, attributes=woman.attributes)]
    masks = _planes(with_it.out, seeing, swapped)
    truth = [class_masks(s.instances, s.size_hw, seeing.labels)["half"] for s in (man, woman)]
    expected = torch.stack([torch.from_numpy(mask.full((64, 64))) for mask in truth])
    exceeds("pixels of swapped images", float((masks == expected).float().mean()), 0.9)


@pytest.mark.learns
def test_the_task_learns_age_of_the_image(configure: Make, job: Make, exceeds: Any) -> None:
    config = configure(
        {"columns": ["age"], "use": "task", "weight": 1.0},
        encoder="resnet18",
        options={"encoder_depth": 3, "decoder_channels": [8, 8, 8]},
        optim={"lr": 3e-3, "warmup_steps": 2},
        epochs=60,
        validate_every=60,
    )
    one = job()
    FAMILY.train(config, one)
    (row,) = _rows(one.out)
    assert list(row)[5:8] == ["val_dice", "val_age_mae", "half"]
    # In years: the held-out people are of 60 and 40, which is 10 away from the others' mean.
    exceeds("years better than the mean", 10 - float(row["val_age_mae"]), 6)
    exceeds("what masks lack", 1 - float(row["val_dice"]), 0.25)


def test_scores_of_the_task_are_those_of_the_networks_predictions(
    configure: Make, job: Make, people: list[Sample]
) -> None:
    val = [*people[8:11], replace(people[11], attributes={"sex": "M"})]
    config = configure({"columns": ["age", "sex"], "use": "both"}, epochs=1)
    one = job(val=val)
    FAMILY.train(config, one)
    network = FAMILY.rebuild(one.out, config, 1)
    assert isinstance(network, MetadataNetwork)
    load_weights(network, one.out / LAST)
    network.eval()
    errors, hits = [], []
    for sample in val:
        found: list[torch.Tensor] = []
        assert network.head is not None
        hook = network.head.register_forward_hook(lambda _, __, out, found=found: found.append(out))
        list(_planes_of(network, config, sample))
        hook.remove()
        (guess,) = found
        age, sex = network.columns.columns
        if "age" in sample.attributes:
            years = float(guess[0, 0]) * age.deviation + age.mean
            errors.append(abs(years - sample.attributes["age"]))
        hits.append(sex.categories[int(guess[0, 1:].argmax())] == sample.attributes["sex"])
    row = _rows(one.out)[-1]
    assert float(row["val_age_mae"]) == pytest.approx(sum(errors) / 3, rel=1e-4)
    assert float(row["val_sex_accuracy"]) == pytest.approx(sum(hits) / 4)


def _planes_of(network: Any, config: Any, sample: Sample) -> Any:
    from zoo.families.settings import plan_scoring
    from zoo.inference.frames import read_frames
    from zoo.inference.predict import predict_semantic

    rows = {sample.key: network.columns.encode(sample.attributes)}
    frames = read_frames([sample], config.image_size, metadata=rows)
    return predict_semantic(network, frames, config.labels, plan_scoring(config))


def test_values_may_be_missing_everywhere(
    configure: Make, job: Make, people: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure({"columns": ["age", "sex"], "use": "both"}, epochs=1)
    train = [*people[:4], *_without(people[4:8])]
    one = job("missing", train=train, val=_without(people[8:]))
    FAMILY.train(config, one)
    (row,) = _rows(one.out)
    assert (row["val_age_mae"], row["val_sex_accuracy"]) == ("", "")
    capsys.readouterr()
    masks = _planes(one.out, config, _without(people[8:]))
    assert len(masks) == 4
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("zoo: note: metadata: found no age, sex of any of 4 images") == 1
    # As they are shown in training, when they are dropped.
    network = FAMILY.rebuild(one.out, config, 1).eval()
    load_weights(network, one.out / BEST)
    image = torch.randn(1, 1, 64, 64)
    rows = torch.from_numpy(network.columns.encode({}))[None]
    assert torch.equal(network(image), network(image, rows))


def test_a_category_that_was_never_learned_is_missing(
    configure: Make, job: Make, people: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(epochs=1)
    one = job()
    FAMILY.train(config, one)
    odd = [replace(people[8], attributes={"age": 60.0, "sex": "divers"})]
    none = [replace(people[8], attributes={"age": 60.0})]
    assert torch.equal(_planes(one.out, config, odd), _planes(one.out, config, none))
    assert "'sex': no training image has 'divers'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("use", ["input", "both"])
def test_the_same_seed_gives_the_same_run_interrupted_or_not(
    configure: Make, job: Make, use: str
) -> None:
    config = configure({"columns": ["age", "sex"], "use": use}, epochs=3)
    whole, again, cut = job("whole"), job("again"), job("cut")
    FAMILY.train(config, whole)
    FAMILY.train(config, again)

    def kill(done: int, total: int, note: str) -> None:
        if done == 3 and total > 1:
            raise Killed

    with pytest.raises(Killed):
        FAMILY.train(config, replace(cut, progress=kill))
    assert torch.load(cut.out / RESUME, weights_only=True)["global_step"] == 2
    FAMILY.train(config, cut)
    for other in (again, cut):
        assert not differing_weights(whole.out, other.out)
        scores = [{k: v for k, v in r.items() if k != "seconds"} for r in _rows(other.out)]
        assert scores == [{k: v for k, v in r.items() if k != "seconds"} for r in _rows(whole.out)]


def test_a_run_does_not_continue_with_other_values(
    configure: Make, job: Make, people: list[Sample]
) -> None:
    config = configure(epochs=2)
    FAMILY.train(configure(epochs=1), job())
    older = replace(people[0], attributes={"age": 90.0, "sex": "F"})
    with pytest.raises(ValueError, match="metadata that the run began with, found others in the"):
        FAMILY.train(config, job(train=[older, *people[1:8]]))


def test_a_table_may_be_gone_when_a_run_predicts(
    configure: Make,
    job: Make,
    people: list[Sample],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "patients.csv"
    lines = [f"{s.group};{s.attributes['sex']};{s.attributes['age']:g}" for s in people]
    table.write_text("\n".join(["patient;sex;age", *lines]))
    named, own = _without(people), configure(epochs=2)
    config = configure({"columns": ["age", "sex"], "file": str(table)}, epochs=2)
    from_table, from_data = job("table", train=named[:8], val=named[8:]), job("data")
    FAMILY.train(config, from_table)
    FAMILY.train(own, from_data)
    assert not differing_weights(from_table.out, from_data.out)
    with_table = _planes(from_table.out, config, named)
    assert torch.equal(with_table, _planes(from_data.out, own, people))
    table.rename(tmp_path / "elsewhere.csv")
    capsys.readouterr()
    without = _planes(from_table.out, config, named)
    assert torch.equal(without, _planes(from_data.out, own, named))
    assert "patients.csv is not there" in " ".join(capsys.readouterr().err.split())
    # What a data set says by itself is taken, where the table is gone.
    assert torch.equal(_planes(from_table.out, config, people), with_table)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"swa": {"start": 0.5}, "epochs": 2},
        {"gradient_checkpointing": True},
        {"precision": "bf16-mixed"},
        {"window": [64, 64], "work_size": [96, 96], "windows_per_image": 2},
        {"cache": "disk", "workers": 1},
        {"augment": [{"name": "CutMix", "p": 0.5}]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_ways_of_training_work_with_it(
    changes: dict[str, Any], configure: Make, job: Make, people: list[Sample]
) -> None:
    config = configure({"columns": ["age", "sex"], "use": "both"}, **{"epochs": 1} | changes)
    one = job()
    FAMILY.train(config, one)
    assert 0 <= float(_rows(one.out)[-1]["val_sex_accuracy"]) <= 1
    assert len(_planes(one.out, config, people[8:], tta=("hflip", "scale:1.5"))) == 4


def test_windows_and_forms_have_the_rows_of_their_own_images(
    configure: Make, job: Make, people: list[Sample]
) -> None:
    config = configure({"columns": ["age", "sex"], "width": 8}, epochs=1)
    one = job()
    FAMILY.train(config, one)
    network = FAMILY.rebuild(one.out, config, 1)
    load_weights(network, one.out / BEST)
    # A network on which metadata have a strong effect.
    with torch.no_grad():
        network.film.layers[-1].weight.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    from zoo.run_files.checkpoints import save_weights

    save_weights(network, one.out / BEST)
    options = {"window": (64, 64), "size": (96, 80), "tta": ("hflip",)}
    together = _planes(one.out, config, people[8:], batch=3, **options)
    alone = torch.cat([_planes(one.out, config, [s], batch=1, **options) for s in people[8:]])
    assert (together != alone).float().mean() < 0.001
    assert not torch.equal(alone, _planes(one.out, config, _without(people[8:]), **options))


def test_weights_to_start_from_may_be_without_metadata(configure: Make, job: Make) -> None:
    plain, seeing = job("plain"), job("seeing")
    FAMILY.train(configure({}, epochs=1), plain)
    FAMILY.train(configure(epochs=1), seeing)
    optim = {"lr": 1e-12, "warmup_steps": 0}
    first, second = job("first"), job("second")
    FAMILY.train(configure(epochs=1, init=str(plain.out / LAST), optim=optim), first)
    FAMILY.train(configure(epochs=1, init=str(seeing.out / LAST), optim=optim), second)
    old, new = read_weights(plain.out / LAST), read_weights(first.out / LAST)
    assert {f"plain.{k}" for k in old} <= new.keys()
    weight = next(k for k, v in old.items() if v.ndim == 4)
    assert torch.allclose(old[weight], new[f"plain.{weight}"], atol=1e-8)
    kept = read_weights(seeing.out / LAST)
    last = next(k for k in kept if k.startswith("film") and kept[k].abs().sum() > 0)
    assert torch.allclose(kept[last], read_weights(second.out / LAST)[last], atol=1e-8)
    assert (first.out / FILE).is_file()


def test_nothing_is_taken_down_of_networks_without_a_task(configure: Make, job: Make) -> None:
    config = configure(epochs=1)
    one = job()
    FAMILY.train(config, one)
    with tallied(FAMILY.rebuild(one.out, config, 1)) as tally:
        assert tally.shape == (0, 2)
    assert not [
        name for name in _rows(one.out)[0] if name.startswith("val_") and "dice" not in name
    ]
