"""Two predictions beside each other: where they differ and, where there is truth, who is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from converters.files.json_files import dump_json
from converters.files.provenance import environment, result_folder
from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.metrics.annotated import measure_masks, truth_masks
from fusion.metrics.objects import match_classes, predicted_objects
from fusion.metrics.scores import ImageScore, Scores, mean_pq
from fusion.sources.ensemble import Ensemble
from fusion.types import Prediction
from zoo.progress import Report, track
from zoo.report.compare.page import DrawnPair, write_comparison
from zoo.results.disagreement import (
    Disagreement,
    MaskPair,
    TruthComparison,
    limit_per_class,
    pair_image,
    without_boxes,
)
from zoo.results.score_table import aligned
from zoo.results.truth import DataSetTruth, ImageBatch, check_frames, short_names, usual_labels
from zoo.source import DataSource

PAGE, RECORD = "compare.html", "compare.json"
PICTURED, PICTURED_PER_CLASS = 24, 3
LISTED = 12

ImageMasks = tuple[str, dict[str, CropMask], dict[str, CropMask]]
"""An image's key, A's masks and B's."""

Objects = dict[str, list[CropMask]]
"""Class -> its objects on an image."""


def compare(
    paths: tuple[Path, Path],
    out: Path,
    *,
    data: DataSource | None,
    labels_name: str | None,
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
        usual = usual_labels(data, labels_name)
        known = DataSetTruth.read(paths, data, usual)
        samples, two = known.samples, SourcePair.open(paths, known, usual)
        found = count_differences(two, samples, report)
        seen = [pair for pair in found.differing() if pair.key in samples]
        chosen = limit_per_class(seen, PICTURED, PICTURED_PER_CLASS)
        write_comparison(
            folder / PAGE,
            found=found,
            drawn=list(drawn(two, chosen, samples)),
            facts=_facts(found, two, data),
        )
        (folder / RECORD).write_text(dump_json(found.record()), encoding="utf-8")
    return found


@dataclass(frozen=True)
class SourcePair:
    """Two sources of predictions, opened.

    Attributes:
        a: the first, alone.
        b: the second, alone.
        names: what they are called, different.
        left_out: images that corrections exclude.
    """

    a: Ensemble
    b: Ensemble
    names: tuple[str, str]
    left_out: frozenset[str] = frozenset()

    @classmethod
    def open(
        cls, paths: tuple[Path, Path], known: DataSetTruth, usual: LabelSpace | None
    ) -> SourcePair:
        """Open two stores, two submissions, or one of each, without reading a mask.

        Args:
            paths: of A and B.
            known: a data set's images, from which submissions have keys and sizes; without any they
                have those of the other's store.
            usual: the label space of submissions that have classes of it.

        Raises:
            ValueError: no such source, or stores of different classes.
        """
        entries = known.entries or None
        opened = [Ensemble.open([path], entries, usual=usual) for path in paths]
        if entries is None:
            sized = next((one.images for one in opened if one.sizes_known), None)
            opened = [
                one if one.sizes_known else Ensemble.open([path], sized, usual=usual)
                for one, path in zip(opened, paths, strict=True)
            ]
        a, b = opened
        if set(a.labels.names).isdisjoint(b.labels.names):
            raise ValueError(f"{paths[1]}: it has no class of {paths[0]}")
        return cls(a, b, short_names(paths), frozenset(known.left_out))

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
        both = frozenset(self.a.classes) & frozenset(self.b.classes)
        if names := [name for name in self.a.labels.names if name in both]:
            return self.a.labels.only(names)
        what = f"classes of '{self.a.labels.name}' that both have"
        raise ValueError(f"compare: expected {what}, found none")

    @property
    def keys(self) -> list[str]:
        """The images that both have, in A's order; without those that are left out."""
        return [k for k in self.a.images if k in self.b.images and k not in self.left_out]

    def masks(self, keys: Sequence[str]) -> Iterator[ImageMasks]:
        """Yield key, A's masks and B's of some images, in their order; as `predictions`."""
        labels = self.labels
        for a, b in self.predictions(keys):
            yield a.key, binary_masks(a, labels), binary_masks(b, labels)

    def predictions(self, keys: Sequence[str]) -> Iterator[tuple[Prediction, Prediction]]:
        """Yield A's and B's of some images, in their order; one image in memory.

        Raises:
            ValueError: an image has another size in A than in B.
        """
        for (a,), (b,) in zip(
            ImageBatch.of(self.a, keys), ImageBatch.of(self.b, keys), strict=True
        ):
            if self.sizes_known and a.size_hw != b.size_hw:
                raise ValueError(
                    f"compare: '{a.key}' is {a.size_hw} in {self.names[0]}, "
                    f"{b.size_hw} in {self.names[1]}"
                )
            yield a, b


def count_differences(
    two: SourcePair, samples: Mapping[str, Sample], report: Report
) -> Disagreement:
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
    true = {key: samples[key] for key in keys if key in samples and samples[key].instances}
    check_frames(two.a.images, true)
    # Whether there are several objects of a class, the truth alone says.
    may_have_several = bool(true) and not labels.once
    named = [name for name in labels.names if name != labels.background]
    pairs: list[MaskPair] = []
    scores: tuple[list[ImageScore], list[ImageScore]] = [], []
    objects_pq: dict[str, float | None] = {}
    for both in track(two.predictions(keys), len(keys), report):
        key = both[0].key
        masks = [binary_masks(one, labels) for one in both]
        found = pair_image(key, masks[0], masks[1], labels.names)
        pairs += found if two.sizes_known else without_boxes(found)
        objects: list[Objects | None] = [None, None]
        if may_have_several:
            ours, theirs = map(predicted_objects, both, repeat(labels), masks)
            objects_pq[key] = mean_pq(match_classes(ours, theirs, named))
            objects = [ours, theirs]
        if key in true:
            for side, mask, own in zip(scores, masks, objects, strict=True):
                side.append(measure_masks(mask, true[key], two.a.labels, labels, ("dice",), own))
    against_truth = None
    if all(scores):
        against_truth = TruthComparison.of(*(Scores(labels, side) for side in scores))
    return Disagreement(
        two.names,
        labels,
        tuple(pairs),
        against_truth,
        images_only_in=_only(two.a.images, two.b.images),
        classes_only_in=_only(two.a.classes, two.b.classes),
        objects_pq=objects_pq if against_truth and against_truth.objects else {},
    )


def _only(a: Iterable[str], b: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ours, theirs = tuple(a), tuple(b)
    return tuple(n for n in ours if n not in theirs), tuple(n for n in theirs if n not in ours)


def drawn(
    two: SourcePair, chosen: Sequence[MaskPair], samples: Mapping[str, Sample]
) -> Iterator[DrawnPair]:
    """Yield chosen pairs in their order with their masks, which are read again, image by image."""
    wanted = {pair.key for pair in chosen}
    keys = [key for key in two.keys if key in wanted]
    masks: dict[tuple[str, str], tuple[CropMask, CropMask, CropMask | None]] = {}
    for key, a, b in two.masks(keys):
        truth = truth_masks(samples[key], two.a.labels) if samples[key].instances else None
        for label in (pair.label for pair in chosen if pair.key == key):
            true = None if truth is None else truth.get(label, EMPTY)
            masks[key, label] = a[label], b[label], true
    for pair in chosen:
        yield DrawnPair(pair, samples[pair.key], *masks[pair.key, pair.label])


def _facts(found: Disagreement, two: SourcePair, data: DataSource | None) -> list[tuple[str, str]]:
    a, b = found.names
    facts = [
        ("A", a),
        ("B", b),
        ("Images compared", str(found.images)),
        ("Classes compared", f"{len(found.labels)} of '{found.labels.name}'"),
        ("Version", f"maskzoo {environment()['versions'].get('maskzoo', 'not installed')}"),
    ]
    for which, images, classes in zip(
        "AB", found.images_only_in, found.classes_only_in, strict=True
    ):
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
        f"{'class':{width}s} {'Dice A,B':>8s} {'differ':>7s} {'only A px':>10s} {'only B px':>10s}"
    )
    if found.against_truth:
        head += f" {'A':>7s} {'B':>7s}  A - B [95 %]"
    lines = [f"A - B: {a} - {b}", *_overall(found), head]
    for row in rows:
        line = f"{row.label:{width}s} {row.dice:8.4f} {row.differ:7d} {row.only_a:10d}"
        line += f" {row.only_b:10d}"
        if row.truth:
            line += f" {row.truth[0]:7.4f} {row.truth[1]:7.4f}  {row.gain or ''}"
        lines.append(line)
    left = len(found.labels) - len(rows)
    more = [f"and {left} more classes, which differ less"] if left else []
    return "\n".join([*lines, *more, *_object_lines(found), str(out / PAGE)])


def _object_lines(found: Disagreement) -> list[str]:
    """What objects say one by one, where a class has several of them."""
    if not found.against_truth or not found.against_truth.objects:
        return []
    rows = [("objects", f"{'A':>7s} {'B':>7s}  A - B [95 %]")]
    for label, own in found.against_truth.objects.items():
        for title, a, b, gain in own.rows():
            sides = " ".join(f"{f'{side.mean:.4f}' if side else '-':>7s}" for side in (a, b))
            rows.append((f"  {label}, {title}", f"{sides}  {gain or '-'}"))
    return aligned(rows)


def _overall(found: Disagreement) -> Iterator[str]:
    same = sum(not pair.differing for pair in found.pairs)
    yield (
        f"{found.images} images, {len(found.labels)} classes: mean Dice between A and B "
        f"{found.mean_dice:.4f}; {same} of {len(found.pairs)} masks are the same to the pixel"
    )
    for name, keys, labels in zip(
        found.names, found.images_only_in, found.classes_only_in, strict=True
    ):
        for what, left in (("images", keys), ("classes", labels)):
            if left:
                yield f"{what} that only {name} has, left out: {len(left)}, such as {left[0]}"
    if found.against_truth and (gain := found.against_truth.gain.overall):
        scores = f"A {found.against_truth.a.mean():.4f}, B {found.against_truth.b.mean():.4f}"
        yield f"against the truth: {scores}; A - B {gain}"
        yield from found.against_truth.describe_shared()
