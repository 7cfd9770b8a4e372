from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import converters
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from fusion.types import Prediction
from zoo.config import RunConfig
from zoo.contract import PredictOptions
from zoo.families.smp import family as smp
from zoo.run_files import checkpoints
from zoo.runs.prediction_benchmark import compare, describe, parse_choice
from zoo.runs.run import Run
from zoo.source import DataSource

pytestmark = pytest.mark.slow

CPU = PredictOptions(device="cpu")


class Shifting:
    """Knows the truth, and predicts it some pixels to the right: one unless options say more."""

    kind, Config = "semantic", RunConfig

    def __init__(self, shift_truth: Callable[[Sample, int], Prediction]) -> None:
        self.shift_truth = shift_truth
        self.asked: list[tuple[PredictOptions, int]] = []

    def train(self, config: Any, job: Any) -> None:
        raise NotImplementedError

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        options.refuse("shifting", "average")
        self.asked.append((options, len(samples)))
        for sample in samples:
            shift = 0 if options.tta else 1
            if options.window:
                # Good for one patient, bad for the others.
                shift = 0 if sample.group == "0" else 6
            yield self.shift_truth(sample, shift)


@pytest.fixture
def shifting(shift_truth: Callable[[Sample, int], Prediction]) -> Shifting:
    return Shifting(shift_truth)


@pytest.fixture(scope="module")
def labels(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> LabelSpace:
    file = tmp_path_factory.mktemp("labels") / "toys.yaml"
    names = list(toys.labels.names)
    file.write_text(json.dumps({"name": "toys", "names": names, "groups": {"tiles": names[1:]}}))
    return LabelSpace.load(str(file))


@pytest.fixture(scope="module")
def data(toys: Any, labels: LabelSpace, tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    folder = tmp_path_factory.mktemp("compare") / "data"
    converters.write(toys.samples, folder, format="coco", labels=labels)
    return DataSource.open(folder)


@pytest.fixture
def make_run(
    cut_toys: Callable[[int], Split], labels: LabelSpace, tmp_path: Path
) -> Callable[..., Run]:
    def make(family: Any, config: Any = None, held_out: int = 5) -> Run:
        file = str(tmp_path.parent / "toys.yaml")
        config = config or RunConfig(labels=_file(labels, file))
        return Run(tmp_path, "shifting", family, config, cut_toys(held_out), 0)

    return make


def _file(labels: LabelSpace, path: str) -> str:
    groups = {group: list(names) for group, names in labels.groups.items()}
    record = {"name": labels.name, "names": list(labels.names), "groups": groups}
    Path(path).write_text(json.dumps(record))
    return path


def _no_report(done: int, total: int, note: str) -> None:
    return


def test_each_choice_is_measured_beside_the_plain_one(
    shifting: Shifting, make_run: Callable[..., Run], data: DataSource
) -> None:
    seen: list[tuple[int, int, str]] = []
    found = compare(
        make_run(shifting),
        data,
        ["hflip", "window=32,overlap=0.25"],
        options=CPU,
        report=lambda *step: seen.append(step),
    )
    assert [row.choice for row in found.rows] == ["plain", "hflip", "window=32,overlap=0.25"]
    assert (found.images, found.patients) == (5, 3)
    plain, flipped, windows = found.rows
    assert flipped.scores.mean() == 1
    assert windows.scores.mean() < plain.scores.mean() < 1
    assert plain.against_plain == {}
    gain = flipped.against_plain["all"]
    assert gain.mean == pytest.approx(1 - plain.scores.mean())
    assert gain.interval is not None
    assert 0 < gain.interval[0] <= gain.mean <= gain.interval[1]
    # One patient gains what two lose: nothing is known.
    mixed = windows.against_plain["tiles"].interval
    assert mixed is not None
    assert mixed[0] < 0 < mixed[1]
    assert seen[-1] == (15, 15, "window=32,overlap=0.25")
    assert [count for _, count in shifting.asked] == [0] * 6 + [5] * 3


def test_only_held_out_images_are_predicted(
    shifting: Shifting, make_run: Callable[..., Run], data: DataSource, toys: Any
) -> None:
    found = compare(make_run(shifting, held_out=3), data, [], options=CPU, report=_no_report)
    keys = [image.key for image in found.rows[0].scores.images]
    assert keys == [sample.key for sample in toys.samples[:3]]


def test_the_record_is_json_and_the_table_has_a_line_a_choice(
    shifting: Shifting, make_run: Callable[..., Run], data: DataSource
) -> None:
    found = compare(make_run(shifting), data, ["hflip"], options=CPU, report=_no_report)
    record = json.loads(json.dumps(found.record()))
    assert [row["choice"] for row in record["choices"]] == ["plain", "hflip"]
    row = record["choices"][1]
    assert row["options"]["tta"] == ["hflip"]
    assert row["dice"] == 1
    assert set(row["difference_to_plain"]) == {"all", "tiles"}
    assert row["difference_to_plain"]["all"]["interval"][0] > 0
    assert len(row["dice_per_image"]) == 5
    lines = describe(found).splitlines()
    assert lines[0].endswith("5 images of 3 patients")
    assert [line.split()[0] for line in lines[1:4]] == ["choice", "plain", "hflip"]
    assert lines[3].split()[1] == "1.0000"
    assert "tiles" in lines[1]
    assert len({len(line) for line in lines[1:4]}) == 1
    assert lines[4].startswith("shared pixels: of ")


def test_time_and_memory_of_a_network(
    make_run: Callable[..., Run],
    data: DataSource,
    toys: Any,
    labels: LabelSpace,
    tiny_smp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    config = tiny_smp(labels=_file(labels, str(tmp_path / "labels.yaml")))
    torch.manual_seed(0)
    network = smp.FAMILY.build(config, len(labels))
    checkpoints.save_weights(network, tmp_path / checkpoints.LAST)
    run = make_run(smp.FAMILY, config)
    choices = ["hflip,window=64"]
    found = compare(run, data, choices, options=CPU, report=_no_report)
    assert all(0 <= row.seconds < 100 for row in found.rows)
    peaks = [row.peak_bytes for row in found.rows]
    assert all(peak is None or 50e6 < peak < 50e9 for peak in peaks)
    assert any(row.against_plain["all"].mean for row in found.rows[1:])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", {}),
        ("hflip, scale:0.75", {"tta": ("hflip", "scale:0.75")}),
        ("window=1024,size=2048x1536", {"window": (1024, 1024), "size": (2048, 1536)}),
        ("hflip average=logits batch=2", {"tta": ("hflip",), "average": "logits", "batch": 2}),
        ("window=whole", {"window": "whole"}),
    ],
)
def test_choices(text: str, expected: dict[str, Any]) -> None:
    found = parse_choice(text, CPU)
    assert found == CPU.model_copy(update=expected)


@pytest.mark.parametrize(
    ("choices", "options", "message"),
    [
        (["hflop"], CPU, "compare 'hflop': tta 'hflop': expected hflip"),
        (["windo=3"], CPU, "compare 'windo=3': unknown key 'windo'"),
        (["size=2,size=3"], CPU, "expected each key once, found 'size' twice"),
        (["hflip", "hflip"], CPU, "compare 'hflip': expected each choice once"),
        (["hflip"], PredictOptions(tta=("vflip",)), "compare: expected tta, size, window"),
    ],
)
def test_bad_choices(
    shifting: Shifting,
    make_run: Callable[..., Run],
    data: DataSource,
    choices: list[str],
    options: PredictOptions,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(make_run(shifting), data, choices, options=options, report=_no_report)


def test_a_choice_that_the_run_cannot_do_is_found_before_any_is_computed(
    shifting: Shifting, make_run: Callable[..., Run], data: DataSource
) -> None:
    with pytest.raises(ValueError, match="average: the family 'shifting' predicts without"):
        compare(
            make_run(shifting), data, ["hflip", "average=logits"], options=CPU, report=_no_report
        )
    assert all(count == 0 for _, count in shifting.asked)
