"""A second look mends what sources get wrong, and knows nothing of what it holds out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapely import affinity

from converters.types import Sample
from fusion.metrics.annotated import score_prediction
from fusion.rules.pooling import Mean
from fusion.types import Prediction
from tests.zoo.families.refiner.conftest import Eggs, predict_wrongly, write_store
from zoo.contract import PredictOptions, TrainJob
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.family import FAMILY
from zoo.run_files import checkpoints

pytestmark = pytest.mark.slow
Configure = Callable[..., RefinerConfig]
MakeJob = Callable[..., TrainJob]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _dice(predictions: Sequence[Prediction], samples: Sequence[Sample], eggs: Eggs) -> float:
    pairs = zip(predictions, samples, strict=True)
    scores = [score_prediction(p, s, eggs.labels).dice for p, s in pairs]
    return float(np.mean([list(score.values()) for score in scores]))


def _fused(eggs: Eggs, samples: Sequence[Sample]) -> list[Prediction]:
    both = ([predict_wrongly(s, eggs.labels, seed) for seed in (0, 1)] for s in samples)
    return [Mean()(predictions, eggs.labels) for predictions in both]


def _bytes(predictions: Sequence[Prediction]) -> list[tuple[Any, ...]]:
    return [
        (p.key, label, score, mask.box_xywh, mask.prob.tobytes())
        for p in predictions
        for label, _, score, mask in p.rows()
    ]


def _predict(job: TrainJob, config: RefinerConfig, **options: Any) -> list[Prediction]:
    return list(FAMILY.predict(job.out, config, job.val, PredictOptions(**options)))


@pytest.mark.learns
@pytest.mark.parametrize("start", ["mean", "hybrid"])
def test_it_mends_what_all_sources_get_wrong(
    start: str, eggs: Eggs, configure_refiner: Configure, refine_job: MakeJob, exceeds: Any
) -> None:
    config, job = configure_refiner(start=start, epochs=12), refine_job()
    FAMILY.train(config, job)
    before = _dice(_fused(eggs, job.val), job.val, eggs)
    after = _dice(_predict(job, config), job.val, eggs)
    assert before < 0.93
    exceeds("gain", after - before, 0.03)


def test_an_untrained_network_changes_nothing(
    eggs: Eggs, configure_refiner: Configure, refine_job: MakeJob
) -> None:
    config = configure_refiner(epochs=1, optim={"name": "sgd", "lr": 1e-12, "momentum": 0})
    job = refine_job()
    FAMILY.train(config, job)
    found = _predict(job, config)
    for mended, fused in zip(found, _fused(eggs, job.val), strict=True):
        assert mended.masks.keys() == fused.masks.keys()
        for label in eggs.labels.names:
            mine, theirs = mended.binary(label), fused.binary(label)
            assert (mine.full(fused.size_hw) == theirs.full(fused.size_hw)).all()


@pytest.mark.learns
def test_a_source_may_be_missing(
    eggs: Eggs, configure_refiner: Configure, refine_job: MakeJob, exceeds: Any
) -> None:
    config, job = configure_refiner(epochs=12), refine_job()
    FAMILY.train(config, job)
    alone = _predict(job, config, sources=eggs.stores[1:])
    left = [predict_wrongly(s, eggs.labels, 1) for s in job.val]
    exceeds("gain", _dice(alone, job.val, eggs) - _dice(left, job.val, eggs), 0.03)
    assert _bytes(alone) != _bytes(_predict(job, config))


@pytest.mark.parametrize("start", ["mean", "hybrid"])
def test_what_it_holds_out_decides_nothing(
    start: str, configure_refiner: Configure, refine_job: MakeJob
) -> None:
    """Truth of the held-out fold that is wrong changes scores, and no answer."""
    config = configure_refiner(start=start, epochs=3, validate_every=1)
    plain, poisoned = refine_job("plain"), refine_job("poisoned")
    wrong = [
        replace(
            s,
            instances=tuple(
                replace(i, geometry=affinity.translate(i.geometry, 9, 9)) for i in s.instances[:2]
            ),
        )
        for s in poisoned.val
    ]
    poisoned = replace(poisoned, val=wrong)
    for job in (plain, poisoned):
        FAMILY.train(config, job)
    scores = [(job.out / "metrics.csv").read_text() for job in (plain, poisoned)]
    assert scores[0] != scores[1]
    assert _bytes(_predict(plain, config)) == _bytes(_predict(poisoned, config))


def test_it_is_deterministic_and_continues(
    configure_refiner: Configure, refine_job: MakeJob
) -> None:
    config = configure_refiner(epochs=4, ema=0.9)
    whole, cut = refine_job("whole"), refine_job("cut")
    FAMILY.train(config, whole)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, note: str) -> None:
        if "epoch 3" in note:
            raise KilledError

    with pytest.raises(KilledError):
        FAMILY.train(config, replace(cut, progress=kill))
    assert not (cut.out / checkpoints.LAST).exists()
    FAMILY.train(config, cut)
    mine, theirs = (checkpoints.read_weights(j.out / checkpoints.LAST) for j in (whole, cut))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert _bytes(_predict(whole, config)) == _bytes(_predict(cut, config))


def test_places_and_inputs_may_be_chosen(configure_refiner: Configure, refine_job: MakeJob) -> None:
    for number, inputs in enumerate(([], ["image"], ["sources", "class"], ["others"])):
        places = ("outlines", "crops")[number % 2]
        config = configure_refiner(epochs=1, inputs=inputs, places=places, patches_per_image=2)
        job = refine_job(str(number))
        FAMILY.train(config, job)
        assert len(_predict(job, config)) == 4


def test_colours_and_objects_that_come_more_than_once(
    eggs: Eggs, tmp_path: Path, configure_refiner: Configure, refine_job: MakeJob
) -> None:
    labels = replace(eggs.labels, name="many", once=False)
    about = {"split": eggs.split.digest, "subset": "val"}
    store = write_store(tmp_path / "val", eggs.samples, labels, 0, **about)
    config = configure_refiner(
        labels=labels.record(), sources=[store], in_channels=3, epochs=1, start="hybrid"
    )
    job = refine_job(labels=labels)
    FAMILY.train(config, job)
    assert len(_predict(job, config)) == 4


def test_no_source(configure_refiner: Configure, refine_job: MakeJob) -> None:
    with pytest.raises(ValueError, match="sources: expected stores of held-out predictions"):
        FAMILY.train(configure_refiner(sources=[]), refine_job())


@pytest.mark.parametrize("about", [{"subset": "test"}, {"split": "another"}])
def test_a_source_that_is_not_held_out(
    about: dict[str, str],
    eggs: Eggs,
    tmp_path: Path,
    configure_refiner: Configure,
    refine_job: MakeJob,
) -> None:
    told = {"split": eggs.split.digest, "subset": "val"} | about
    store = write_store(tmp_path / "bad", eggs.samples, eggs.labels, 0, **told)
    with pytest.raises(ValueError, match="bad: expected predictions of held-out images by the fol"):
        FAMILY.train(configure_refiner(sources=[store]), refine_job())


def test_a_source_of_one_fold_alone(
    eggs: Eggs, tmp_path: Path, configure_refiner: Configure, refine_job: MakeJob
) -> None:
    about = {"split": eggs.split.digest, "subset": "val", "fold": 0}
    store = write_store(tmp_path / "one", eggs.samples[:4], eggs.labels, 0, **about)
    with pytest.raises(ValueError, match=r"found none of 'egg_04' \(of 8 in all\)"):
        FAMILY.train(configure_refiner(sources=[store]), refine_job())


def test_sources_that_do_not_fit(
    eggs: Eggs, tmp_path: Path, configure_refiner: Configure, refine_job: MakeJob
) -> None:
    config, job = configure_refiner(epochs=1, patches_per_image=1), refine_job()
    FAMILY.train(config, job)
    other = write_store(tmp_path / "other", eggs.samples, eggs.labels, 0)
    with pytest.raises(ValueError, match=r"has learned with \(left, right\), found 'other'"):
        _predict(job, config, sources=[other])
    few = write_store(tmp_path / "left", eggs.samples[1:], eggs.labels, 0)
    with pytest.raises(ValueError, match="left: expected predictions of 'egg_00', found none"):
        _predict(job, config, sources=[few])
    with pytest.raises(ValueError, match="tta: the family 'refiner' predicts without"):
        _predict(job, config, tta=["hflip"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": [{"name": "HorizontalFlip"}]}, "augment: expected none"),
        ({"patience": 3}, "patience: expected none"),
        ({"optim": {"schedule": "plateau"}}, "optim.schedule plateau: expected none"),
        ({"size": [36, 32]}, "multiples of 8"),
        ({"loss": {"ce": 1}}, "loss.ce: expected losses of single classes"),
    ],
)
def test_what_a_config_cannot_say(
    changes: dict[str, Any], message: str, configure_refiner: Configure
) -> None:
    with pytest.raises(ValueError, match=message):
        configure_refiner(**changes)
