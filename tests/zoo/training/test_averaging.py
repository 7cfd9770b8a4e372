"""Averages of weights, an early end, and the knobs of kernels and memory."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_weights import differing_weights
from torch import nn

from converters.files.provenance import read_provenance, write_provenance
from zoo.data.batches import normalize
from zoo.data.items import SampleItems
from zoo.data.reading import resize_image
from zoo.families.smp.family import FAMILY
from zoo.run_files import checkpoints
from zoo.run_files.checkpoints import BEST, LAST, RESUME, read_about, read_weights
from zoo.run_files.notes import add_note, noted_kernels
from zoo.training.averaging import Averaging, settle_rate
from zoo.training.config import SwaConfig
from zoo.training.loop import prepare
from zoo.training.optim import OptimConfig, rate
from zoo.training.recorder import Recorder

pytestmark = pytest.mark.slow

STILL = {"lr": 1e-12, "weight_decay": 0.0}


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _assert_same_run(first: Path, second: Path) -> None:
    assert not differing_weights(first, second)
    scores = [[r["val_dice"] for r in _rows(out)] for out in (first, second)]
    assert scores[0] == scores[1]


def _small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_ema_is_the_recurrence_with_warm_up(tiny_smp: Any) -> None:
    torch.manual_seed(0)
    network = _small()
    averaging = Averaging(network, tiny_smp(ema=0.5))
    expected = None
    steps = (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
    for count, step in enumerate(dict.fromkeys(steps)):
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.data.normal_()
        for _ in range(steps.count(step)):
            averaging.on_train_batch_end(SimpleNamespace(global_step=step), None, None, None, 0)
        now = {k: v.double() for k, v in network.state_dict().items()}
        keep = min(0.5, (1 + count) / (10 + count))
        expected = (
            now
            if expected is None
            else {k: keep * expected[k] + (1 - keep) * v for k, v in now.items()}
        )
    found = averaging.best_network.state_dict()
    assert expected is not None
    for key in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        assert torch.allclose(found[key].double(), expected[key], atol=1e-6), key
        assert not torch.allclose(found[key], network.state_dict()[key], atol=1e-2), key


def test_what_is_scored_and_written_is_the_exponential_average(
    make_job: Any, tiny_smp: Any
) -> None:
    plain, averaged = make_job("plain"), make_job("averaged")
    FAMILY.train(tiny_smp(), plain)
    FAMILY.train(tiny_smp(ema=0.99), averaged)
    state = torch.load(averaged.out / RESUME, weights_only=True)
    # The weights that learn are those of a run without.
    other = torch.load(plain.out / RESUME, weights_only=True)
    for key, value in other["state_dict"].items():
        assert torch.equal(state["state_dict"][key], value), key
    written = read_weights(averaged.out / LAST)
    average = state["callbacks"]["Averaging"]["average"]
    for key, value in written.items():
        assert torch.equal(average[f"module.{key}"], value), key
    assert any(not torch.equal(v, read_weights(plain.out / LAST)[k]) for k, v in written.items())


def test_swa_is_the_mean_of_the_last_epochs_with_statistics_of_its_own(
    make_job: Any, tiny_smp: Any, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    plain = Recorder.on_train_epoch_end

    def look(self: Any, trainer: Any, module: Any) -> None:
        seen.append({k: v.clone() for k, v in module.network.state_dict().items()})
        plain(self, trainer, module)

    monkeypatch.setattr(Recorder, "on_train_epoch_end", look)
    job = make_job()
    config = tiny_smp(swa={"start": 0.4, "lr": 1e-3}, batch=4, augment=[], epochs=4)
    FAMILY.train(config, job)
    found = read_weights(job.out / LAST)
    for key in found:
        if "running" not in key and "num_batches" not in key:
            mean = torch.stack([state[key] for state in seen[1:]]).mean(0)
            assert torch.allclose(found[key], mean, atol=1e-6), key
    network = FAMILY.build(config, len(job.labels))
    checkpoints.load_weights(network, job.out / LAST)
    name, norm = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d))
    given: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach()))
    items = SampleItems(job.train, job.labels)
    images = [torch.from_numpy(resize_image(items[i].image, config.size)) for i in range(4)]
    with torch.no_grad():
        network.train()(normalize(torch.stack(images)[:, None]))
    mean, variance = given[0].mean((0, 2, 3)), given[0].var((0, 2, 3))
    assert torch.allclose(found[f"{name}.running_mean"], mean, atol=1e-4)
    assert torch.allclose(found[f"{name}.running_var"], variance, rtol=1e-3)


def test_the_last_score_is_that_of_the_equal_average(
    make_job: Any, tiny_smp: Any, toys: Any
) -> None:
    from fusion.metrics.annotated import truth_masks
    from zoo.contract import PredictOptions

    job = make_job()
    config = tiny_smp(swa={"start": 0.0}, epochs=2)
    FAMILY.train(config, job)
    (job.out / LAST).replace(job.out / BEST)
    samples = toys.samples[4:]
    total = 0.0
    for sample, found in zip(
        samples, FAMILY.predict(job.out, config, samples, PredictOptions()), strict=True
    ):
        from fusion.metrics.scores import dice

        truth = truth_masks(sample, toys.labels)
        total += sum(dice(found.binary(n), truth[n]) for n in toys.labels.names) / 9 / 2
    assert float(_rows(job.out)[-1]["val_dice"]) == pytest.approx(total, abs=2e-6)


KNOBS: dict[str, dict[str, Any]] = {
    "ema": {"ema": 0.9},
    "swa": {"swa": {"start": 0.3, "lr": 1e-3}},
    "swa on the schedule": {"swa": {"start": 0.3}, "accumulate": 2},
    "patience": {"patience": 1, "optim": STILL, "epochs": 5},
    "clip": {"clip": 0.1, "accumulate": 2, "deterministic": True},
}


@pytest.mark.parametrize("knob", KNOBS)
def test_an_interrupted_run_continues_bit_for_bit(make_job: Any, tiny_smp: Any, knob: str) -> None:
    config, whole = tiny_smp(**KNOBS[knob]), make_job("whole")
    FAMILY.train(config, whole)

    def progress(done: int, total: int, note: str) -> None:
        if total > 1 and done in stops:
            stops.remove(done)
            raise Killed

    stops = {3, 4} if knob == "patience" else {3, 6}
    for _ in range(2):
        with pytest.raises(Killed):
            FAMILY.train(config, make_job("cut", progress=progress))
    FAMILY.train(config, make_job("cut"))
    _assert_same_run(whole.out, make_job("cut").out)


def test_a_run_without_better_scores_ends_and_stays_ended(make_job: Any, tiny_smp: Any) -> None:
    job = make_job()
    config = tiny_smp(patience=2, epochs=9, optim=STILL, checkpoint_every=5)
    FAMILY.train(config, job)
    assert [r["epoch"] for r in _rows(job.out)] == ["1", "2", "3"]
    assert read_about(job.out / LAST) == {
        "format": "pt",
        "epochs": "3",
        "stopped": "no better score in 2",
    }
    before = read_weights(job.out / LAST)
    # As if the process had ended after its last checkpoint.
    (job.out / LAST).unlink()
    FAMILY.train(config, job)
    assert len(_rows(job.out)) == 3
    assert all(torch.equal(before[k], v) for k, v in read_weights(job.out / LAST).items())
    notes: list[str] = []
    FAMILY.train(config, make_job(progress=lambda done, total, note: notes.append(note)))
    assert notes == [f"{job.out} is trained already, 3 epochs"]


def test_a_checkpoint_of_an_older_release_keeps_its_best_weights(
    make_job: Any, tiny_smp: Any
) -> None:
    def progress(done: int, total: int, note: str) -> None:
        if done == 3 and total > 1:
            raise Killed

    with pytest.raises(Killed):
        FAMILY.train(tiny_smp(), make_job(progress=progress))
    job = make_job()
    state = torch.load(job.out / RESUME, weights_only=True)
    state["callbacks"] = {}
    torch.save(state, job.out / RESUME)
    text = (job.out / "metrics.csv").read_text().splitlines()
    head, row = text[0].split(","), text[1].split(",")
    row[head.index("val_dice")] = "0.99"
    (job.out / "metrics.csv").write_text("\n".join([text[0], ",".join(row)]) + "\n")
    FAMILY.train(tiny_smp(), job)
    assert read_about(job.out / BEST)["epochs"] == "1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ema": 0.9, "swa": {}}, "expected either ema or swa"),
        ({"swa": {}, "patience": 3}, "expected patience 0"),
        ({"swa": {"lr": 1e-3}, "optim": {"schedule": "plateau"}}, "schedule plateau"),
        ({"swa": {"start": 1.0}}, "less than 1"),
        ({"swa": {"begin": 0.5}}, "unknown key 'swa.begin'"),
        ({"ema": 1.0}, "less than 1"),
        ({"channels_last": "yes please"}, "'channels_last"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_smp: Any, changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_smp(**changes)


def test_patience_needs_images_to_score_on(make_job: Any, tiny_smp: Any) -> None:
    with pytest.raises(ValueError, match="patience 2: expected images to score on"):
        FAMILY.train(tiny_smp(patience=2), make_job(val=()))


@pytest.mark.parametrize("anneal", [0, 2])
def test_the_rate_settles(anneal: int) -> None:
    optim = OptimConfig(lr=0.1, warmup_steps=5)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    swa = SwaConfig(start=0.5, lr=0.02, anneal=anneal)
    schedule = settle_rate(optimizer, optim, swa, epochs=10, steps_per_epoch=4)
    found = []
    for _ in range(40):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found[:20] == pytest.approx([0.1 * rate(step, 40, optim) for step in range(20)])
    assert found[20 + 4 * anneal :] == pytest.approx([0.02] * (20 - 4 * anneal))
    top = 0.1 * rate(20, 40, optim)
    for step in range(4 * anneal):
        way = (1 - math.cos(math.pi * (step + 1) / 8)) / 2
        assert found[20 + step] == pytest.approx(top + (0.02 - top) * way)


class Unsure(nn.Module):
    """Uses a kernel of which PyTorch has no deterministic variant on the CPU."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten().put_(torch.tensor([0]), torch.zeros(1))


def test_kernels_that_differ_are_named_and_the_mode_is_restored() -> None:
    found: set[str] = set()
    with noted_kernels(found):
        torch.use_deterministic_algorithms(True, warn_only=True)
        Unsure()(torch.zeros(2, 2))
        with pytest.warns(UserWarning, match="another"):
            warnings.warn("another", stacklevel=1)
    assert found == {"put_"}
    assert not torch.are_deterministic_algorithms_enabled()


def test_notes_are_kept_once(tmp_path: Path) -> None:
    add_note(tmp_path, "lost")
    assert not list(tmp_path.iterdir())
    write_provenance(tmp_path, ["zoo"], {"fold": 1}, 7, "abc")
    for note in ("first", "second", "first"):
        add_note(tmp_path, note)
    record = read_provenance(tmp_path)
    assert record["notes"] == ["first", "second"]
    assert (record["config"], record["seed"], record["split"]) == ({"fold": 1}, 7, "abc")


@pytest.mark.parametrize(("wanted", "expected"), [("auto", True), (True, True), (False, False)])
def test_the_order_of_memory(
    tiny_smp: Any, monkeypatch: pytest.MonkeyPatch, wanted: Any, expected: bool
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    network = nn.Conv2d(4, 4, 3)
    prepare(network, tiny_smp(channels_last=wanted), torch.device("cpu"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last) is expected


def test_an_order_that_breaks_is_refused(tiny_smp: Any) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2))
    with pytest.raises(ValueError, match=r"channels_last: expected false or auto.* '1', a 1x1"):
        prepare(network, tiny_smp(channels_last=True), torch.device("cpu"))
    prepare(network, tiny_smp(channels_last=False), torch.device("cpu"))


def test_a_compiled_network_trains_under_its_own_names(make_job: Any, tiny_smp: Any) -> None:
    plain, compiled = make_job("plain"), make_job("compiled")
    FAMILY.train(tiny_smp(epochs=1), plain)
    # The compiler itself takes minutes: what it is given is run as it is.
    with torch.compiler.set_stance("force_eager"):
        FAMILY.train(tiny_smp(epochs=1, compile=True), compiled)
    _assert_same_run(plain.out, compiled.out)
