"""Two predictions beside each other: where they differ and, where there is truth, who is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.files import environment, result_folder
from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace, Sample
from converters.writing import dump_json
from fusion.metrics import ImageScore, Scores, score_image
from fusion.sources import Ensemble
from fusion.store import ImageEntry, PredictionStore
from zoo.disagreement import (
    Disagreement,
    MaskPair,
    Verdict,
    pair_image,
    spread_out,
    without_place,
)
from zoo.evaluate import binary_masks, describe_person, truth_masks
from zoo.progress import Report, track
from zoo.report.compare_page import Drawn, write_comparison
from zoo.report.measuring import read_some
from zoo.source import DataSource

PAGE, RECORD = "compare.html", "compare.json"
PICTURED, PICTURED_PER_CLASS = 24, 3
LISTED = 12

Masks = tuple[str, dict[str, CropMask], dict[str, CropMask]]
"""An image's key, A's masks and B's."""


def compare(
    paths: tuple[Path, Path],
    out: Path,
    *,
    data: DataSource | None,
    labels_name: str,
    command: Sequence[str],
    report: Report,
) -> Disagreement:
    """Compare two predictions and write OUT/compare.html and OUT/compare.json.

    Args:
        paths: two prediction stores, two submissions, or one of each.
        out: folder; a previous comparison is replaced.
        data: for pictures, and for truth where it has any.
        labels_name: label space of submissions; a store names its own.
        command: what the user called, for `provenance.json`.
        report: for a progress bar.

    Raises:
        ValueError: sources that have no image or no class in common, or that cannot be read.
    """
    with result_folder(out, "compare", {"command": list(command)}) as folder:
        usual = LabelSpace.load(labels_name)
        samples = read_samples(data, paths, usual) if data else {}
        two = Two.open(paths, samples, usual)
        found = count_differences(two, samples, report)
        known = [pair for pair in found.differing() if pair.key in samples]
        chosen = spread_out(known, PICTURED, PICTURED_PER_CLASS)
        write_comparison(
            folder / PAGE,
            found=found,
            drawn=list(drawn(two, chosen, samples)),
            facts=_facts(found, two, data),
        )
        (folder / RECORD).write_text(dump_json(found.record()), encoding="utf-8")
    return found


@dataclass(frozen=True)
class Two:
    """Two sources of predictions, opened.

    Attributes:
        a: the first, alone.
        b: the second, alone.
        names: what they are called, different.
    """

    a: Ensemble
    b: Ensemble
    names: tuple[str, str]

    @classmethod
    def open(
        cls, paths: tuple[Path, Path], samples: Mapping[str, Sample], usual: LabelSpace
    ) -> Two:
        """Open two stores, two submissions, or one of each, without reading a mask.

        Args:
            paths: of A and B.
            samples: a data set's images, from which submissions have keys and sizes; else these are
                those of the other's store.
            usual: the label space of submissions that have classes of it.

        Raises:
            ValueError: no such source, or stores of different classes.
        """
        known = {k: (*s.size_hw, s.file_name) for k, s in samples.items()} or None
        opened = [Ensemble.open([path], known, usual=usual) for path in paths]
        if known is None:
            sized = next((one.images for one in opened if one.sizes_known), None)
            opened = [
                one if one.sizes_known else Ensemble.open([path], sized, usual=usual)
                for one, path in zip(opened, paths, strict=True)
            ]
        a, b = opened
        if set(a.labels.names).isdisjoint(b.labels.names):
            raise ValueError(f"{paths[1]}: it has no class of {paths[0]}")
        return cls(a, b, _names(paths))

    @property
    def sizes_known(self) -> bool:
        """Whether every image's size is known."""
        return self.a.sizes_known and self.b.sizes_known

    @property
    def labels(self) -> LabelSpace:
        """The classes that both speak of.

        Raises:
            ValueError: there are none.
        """
        return narrow(self.a.labels, frozenset(self.a.classes) & frozenset(self.b.classes))

    @property
    def keys(self) -> list[str]:
        """The images that both have, in A's order."""
        return [key for key in self.a.images if key in self.b.images]

    def masks(self, keys: Sequence[str], labels: LabelSpace) -> Iterator[Masks]:
        """Yield key, A's masks and B's of some images, in A's order; one image in memory.

        Raises:
            ValueError: an image has another size in A than in B.
        """
        for (a,), (b,) in zip(read_some(self.a, keys), read_some(self.b, keys), strict=True):
            if self.sizes_known and a.size_hw != b.size_hw:
                raise ValueError(
                    f"compare: '{a.key}' is {a.size_hw} in {self.names[0]}, "
                    f"{b.size_hw} in {self.names[1]}"
                )
            yield a.key, binary_masks(a, labels), binary_masks(b, labels)


def _names(paths: tuple[Path, Path]) -> tuple[str, str]:
    """Folder or file names; with as much of what lies above as tells them apart."""
    a, b = (path.resolve().with_suffix("") if path.is_file() else path.resolve() for path in paths)
    for depth in range(1, max(len(a.parts), len(b.parts)) + 1):
        names = "/".join(a.parts[-depth:]), "/".join(b.parts[-depth:])
        if names[0] != names[1]:
            return names
    return f"{a.name} (A)", f"{b.name} (B)"


def read_samples(data: DataSource, paths: Sequence[Path], usual: LabelSpace) -> dict[str, Sample]:
    """Read a data set's images, annotated or not, with the classes of the first store."""
    store = next((path for path in paths if path.is_dir()), None)
    labels = PredictionStore(store).label_space() if store else usual
    return {sample.key: sample for sample in data.read(labels, "all")}


def count_differences(two: Two, samples: Mapping[str, Sample], report: Report) -> Disagreement:
    """Count where two sources differ on the images and classes that both have.

    Args:
        two: the sources.
        samples: key -> sample; those with truth say who is right.
        report: for a progress bar.

    Raises:
        ValueError: they have no image or no class in common, or lie in another frame than the
            truth.
    """
    labels, keys = two.labels, two.keys
    pairs: list[MaskPair] = []
    scores: tuple[list[ImageScore], list[ImageScore]] = ([], [])
    for key, a, b in track(two.masks(keys, labels), len(keys), report):
        found = pair_image(key, a, b, labels.names)
        pairs += found if two.sizes_known else without_place(found)
        if key in samples and samples[key].instances:
            _check_size(key, two.a.images[key], samples[key])
            for into, score in zip(scores, _score(samples[key], (a, b), labels), strict=True):
                into.append(score)
    verdict = Verdict.of(*(Scores(labels, found) for found in scores)) if scores[0] else None
    sides = two.a, two.b
    return Disagreement(
        two.names,
        labels,
        tuple(pairs),
        verdict,
        _only(*(side.images for side in sides)),
        _only(*(side.classes for side in sides)),
    )


def _check_size(key: str, entry: ImageEntry, sample: Sample) -> None:
    if tuple(entry[:2]) != tuple(sample.size_hw):
        raise ValueError(
            f"compare: '{key}' was predicted at {tuple(entry[:2])}, its truth is "
            f"{tuple(sample.size_hw)}; take the data set of whole images"
        )


def _only(a: Iterable[str], b: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ours, theirs = tuple(a), tuple(b)
    return tuple(n for n in ours if n not in theirs), tuple(n for n in theirs if n not in ours)


def narrow(labels: LabelSpace, names: frozenset[str]) -> LabelSpace:
    """Return a label space with some of its classes only; it keeps its name.

    Raises:
        ValueError: none of its classes is among them.
    """
    kept = tuple(name for name in labels.names if name in names)
    if not kept:
        raise ValueError(f"compare: expected classes of '{labels.name}' that both have, found none")
    if kept == labels.names:
        return labels
    groups = {g: tuple(n for n in m if n in names) for g, m in labels.groups.items()}
    return LabelSpace(labels.name, kept, {g: m for g, m in groups.items() if m})


def _score(
    sample: Sample, masks: Sequence[Mapping[str, CropMask]], labels: LabelSpace
) -> list[ImageScore]:
    truth = {n: m for n, m in truth_masks(sample).items() if n in labels.index}
    found = [score_image(sample.key, one, truth, labels) for one in masks]
    return [describe_person(score, sample, labels) for score in found]


def drawn(two: Two, chosen: Sequence[MaskPair], samples: Mapping[str, Sample]) -> Iterator[Drawn]:
    """Yield chosen pairs in their order with their masks, which are read again, image by image."""
    wanted = {pair.key for pair in chosen}
    keys = [key for key in two.keys if key in wanted]
    masks: dict[tuple[str, str], tuple[CropMask, CropMask, CropMask | None]] = {}
    for key, a, b in two.masks(keys, two.labels):
        truth = truth_masks(samples[key]) if samples[key].instances else None
        for label in (pair.label for pair in chosen if pair.key == key):
            true = None if truth is None else truth.get(label, EMPTY)
            masks[key, label] = a[label], b[label], true
    for pair in chosen:
        yield Drawn(pair, samples[pair.key], *masks[pair.key, pair.label])


def _facts(found: Disagreement, two: Two, data: DataSource | None) -> list[tuple[str, str]]:
    a, b = found.names
    facts = [
        ("A", a),
        ("B", b),
        ("Images compared", str(found.images)),
        ("Classes compared", f"{len(found.labels)} of '{found.labels.name}'"),
        ("Version", f"segzoo {environment()['versions'].get('segzoo', 'not installed')}"),
    ]
    for which, images, classes in zip("AB", found.only, found.classes_only, strict=True):
        if images:
            facts.append((f"Images only in {which}", f"{len(images)}, such as {images[0]}"))
        if classes:
            facts.append((f"Classes only in {which}", ", ".join(classes)))
    if not two.sizes_known:
        facts.append(("Sizes", "unknown: pixels are counted, nothing is drawn; give --data"))
    return facts if data is None else [*facts, ("Data", data.path.resolve().name)]


def describe(found: Disagreement, out: Path) -> str:
    """Return the comparison as lines for a terminal: the classes that differ most."""
    a, b = found.names
    rows = sorted(found.per_class(), key=lambda row: (row.dice, row.label))[:LISTED]
    width = max(len(row.label) for row in rows)
    head = (
        f"{'class':{width}s} {'A-B Dice':>8s} {'differ':>7s} {'only A px':>10s} {'only B px':>10s}"
    )
    if found.verdict:
        head += f" {'A':>7s} {'B':>7s}  B - A [95 %]"
    lines = [f"A: {a}", f"B: {b}", *_overall(found), head]
    for row in rows:
        line = f"{row.label:{width}s} {row.dice:8.4f} {row.differ:7d} {row.only_a:10d}"
        line += f" {row.only_b:10d}"
        if row.truth:
            line += f" {row.truth[0]:7.4f} {row.truth[1]:7.4f}  {row.gain or ''}"
        lines.append(line)
    left = len(found.labels) - len(rows)
    more = [f"and {left} more classes, which differ less"] if left else []
    return "\n".join([*lines, *more, str(out / PAGE)])


def _overall(found: Disagreement) -> Iterator[str]:
    same = sum(not pair.differing for pair in found.pairs)
    yield (
        f"{found.images} images, {len(found.labels)} classes: mean Dice between A and B "
        f"{found.mean_dice:.4f}; {same} of {len(found.pairs)} masks are the same to the pixel"
    )
    if found.verdict and (gain := found.verdict.gain.overall):
        scores = f"A {found.verdict.a.mean():.4f}, B {found.verdict.b.mean():.4f}"
        yield f"against the truth: {scores}; B - A {gain}"
