"""The page of a comparison: where two predictions differ, and who is right; one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.files.provenance import atomic_write_text
from converters.masks import CropMask
from converters.pictures import drawing
from converters.pictures.colors import BOTH_ON_GREY, ONLY_A, ONLY_B, TRUTH, css
from converters.types import Sample
from fusion.metrics.intervals import Estimate
from fusion.metrics.scores import dice
from fusion.metrics.summary import describe_overlapping
from zoo.report import intervals
from zoo.report.compare import pictures as compare_pictures
from zoo.report.intervals import Mark
from zoo.report.numbers import DIGITS, signed
from zoo.report.sections import by_group
from zoo.report.templates import MOST_ROWS, render
from zoo.results.disagreement import ClassDifference, Disagreement, MaskPair, TruthComparison

QUALITY = 84
LISTED_IMAGES, LISTED_PAIRS = 20, 40
NAMED = 8


@dataclass(frozen=True)
class DrawnPair:
    """A pair of masks with what is needed to draw it; `truth` is None where nobody knows it."""

    pair: MaskPair
    sample: Sample
    a: CropMask
    b: CropMask
    truth: CropMask | None


@dataclass(frozen=True)
class CardView:
    """One difference as the template shows it; Dice against the truth where it is known."""

    pair: MaskPair
    what: str
    figures: tuple[tuple[str, str, str], ...]
    truth: tuple[float, float] | None


@dataclass(frozen=True)
class ClassView:
    """One class as the template shows it: `tint` by its error, 0..1."""

    row: ClassDifference
    tint: float
    mark: Mark | None


@dataclass(frozen=True)
class ObjectView:
    """One quality of a class's objects as the template shows it."""

    title: str
    a: Estimate | None
    b: Estimate | None
    gain: Estimate | None
    mark: Mark | None


def write_comparison(
    out: Path, *, found: Disagreement, drawn: Sequence[DrawnPair], facts: Sequence[tuple[str, str]]
) -> None:
    """Write the page: headline, classes, pictures, images, pairs, and what the measures mean.

    The file holds its pictures and its style, loads nothing, and appears whole or not at all.

    Args:
        out: the HTML file; replaced where it exists.
        found: what differs.
        drawn: the pairs to show, in their order; their images are read here.
        facts: name and value of what a reader wants to know.

    Raises:
        ValueError: an image that cannot be read.
    """
    rows, images, pairs = found.per_class(), found.per_image(), found.differing()
    objects, objects_reach = _objects(found)
    page = render(
        "compare/page.html",
        title=f"{found.names[0]} (A) and {found.names[1]} (B)",
        headline=headline(found),
        remarks=remarks(found),
        found=found,
        overlapping=_overlapping(found),
        sections=_sections(found, rows),
        objects=objects,
        objects_reach=_axis(objects_reach),
        images=images[:MOST_ROWS],
        images_first=LISTED_IMAGES,
        images_left=max(0, len(images) - MOST_ROWS),
        pairs=pairs[:MOST_ROWS],
        pairs_first=LISTED_PAIRS,
        pairs_left=max(0, len(pairs) - MOST_ROWS),
        cards=[_card(one) for one in drawn],
        facts=facts,
        reach=_axis(intervals.reach_of(row.gain for row in rows)),
        mark_wh=intervals.MARK_WH,
        tones={
            "a": css(ONLY_A),
            "b": css(ONLY_B),
            "both": css(BOTH_ON_GREY),
            "truth": css(TRUTH),
        },
    )
    atomic_write_text(out, page)


def headline(found: Disagreement) -> str:
    """Return the result in one sentence."""
    same = sum(not pair.differing for pair in found.pairs)
    if same == len(found.pairs):
        images = f"{found.images} image{'' if found.images == 1 else 's'}"
        # The same pixels can be one object or two.
        apart = any(pq is not None and pq < 1 for pq in found.objects_pq.values())
        objects = "; their objects, one by one, are not" if apart else ""
        return f"A and B are the same to the pixel: {same} masks on {images}{objects}."
    said = f"A and B have a mean Dice of {found.mean_dice:.{DIGITS}f} with each other"
    gain = found.against_truth.gain.overall if found.against_truth else None
    if gain is None:
        return f"{said}; {same} of {len(found.pairs)} masks are the same to the pixel."
    if not gain.is_sure:
        return f"{said}; the truth does not tell them apart: A minus B is {intervals.say(gain)}."
    better, worse = ("A", "B") if gain.mean > 0 else ("B", "A")
    return f"{said}; against the truth {better} is better than {worse}: A minus B is " + (
        f"{intervals.say(gain)}."
    )


def remarks(found: Disagreement) -> list[str]:
    """Return what else has to be said: who is who, what is empty, what the classes say."""
    a, b = found.names
    said = [f"A is {a}, B is {b}."]
    empty = [pair.empty for pair in found.pairs]
    if any(empty):
        counts = f"A draws nothing on {empty.count('A')} masks where B does, and B nothing on "
        said.append(f"{counts}{empty.count('B')} where A does.")
    if found.against_truth:
        said.append(_about_classes(found.against_truth, len(found.labels)))
        shared = found.against_truth.describe_shared()
        if shared:
            said.append(f"Where classes overlap: {'. '.join(shared)}.")
        said += [
            f"Objects of {label} one by one: PQ A {_number(a)}, B {_number(b)}"
            + (f"; A minus B {intervals.say(gain)}." if gain else ".")
            for label, own in found.against_truth.objects.items()
            for _, a, b, gain in own.rows()[:1]
        ]
    return said


def _number(found: Estimate | None) -> str:
    return "none" if found is None else f"{found.mean:.{DIGITS}f}"


def _overlapping(found: Disagreement) -> str:
    return describe_overlapping(found.against_truth.a) if found.against_truth else ""


def _about_classes(against_truth: TruthComparison, count: int) -> str:
    sure = {n: e.mean for n, e in against_truth.gain.classes.items() if e.is_sure}
    sides = {
        "A": [name for name, mean in sure.items() if mean > 0],
        "B": [name for name, mean in sure.items() if mean < 0],
    }
    parts = [f"{side} is better on {_some(names)}" for side, names in sides.items() if names]
    if not parts:
        return "On no class does the interval of A minus B leave out 0."
    return f"{'; '.join(parts)}: there the interval leaves out 0, of {count} classes."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} classes"


def _sections(
    found: Disagreement, rows: Sequence[ClassDifference]
) -> list[tuple[str, tuple[ClassView, ...]]]:
    """The classes by group, shaded by how far their Dice is from 1."""
    worst = min(row.dice for row in rows)
    reach = intervals.reach_of(row.gain for row in rows)
    # At least a twentieth, so that a table of small differences stays pale.
    span = max(1 - worst, 0.05)
    views = {
        row.label: ClassView(row, (1 - row.dice) / span, intervals.mark(row.gain, reach))
        for row in rows
    }
    return by_group(views, found.labels)


def _objects(found: Disagreement) -> tuple[list[tuple[str, tuple[ObjectView, ...]]], float]:
    """The qualities of objects by class, and how far the axis of their marks reaches."""
    compared = found.against_truth.objects if found.against_truth else {}
    reach = intervals.reach_of(gain for own in compared.values() for gain in own.gain.values())
    views = [
        (label, tuple(ObjectView(*row, intervals.mark(row[-1], reach)) for row in own.rows()))
        for label, own in compared.items()
    ]
    return views, reach


def _axis(reach: float) -> str:
    return signed(reach).lstrip("+")


def _card(drawn: DrawnPair) -> CardView:
    pair, a, b = drawn.pair, drawn.a, drawn.b
    view = compare_pictures.view_of_difference(pair.box_xywh, a, b, drawn.sample.size_hw)
    image = drawing.read_view(drawn.sample, view)
    outlines = compare_pictures.draw_outlines(image, a, b, drawn.truth, view)
    agreement = compare_pictures.draw_agreement(image, a, b, view)
    about = f"{pair.key}: {pair.label}"
    figures = (
        (drawing.encode_jpeg(image, QUALITY), f"{about}, the image", "image"),
        (drawing.encode_jpeg(outlines, QUALITY), f"{about}, outlines of A and B", "outlines"),
        (drawing.encode_jpeg(agreement, QUALITY), f"{about}, what only one has", "difference"),
    )
    scores = None if drawn.truth is None else (dice(a, drawn.truth), dice(b, drawn.truth))
    return CardView(pair, say_pair(pair), figures, scores)


def say_pair(pair: MaskPair) -> str:
    """Return what differs, in a few words."""
    if pair.empty:
        other = "B" if pair.empty == "A" else "A"
        return f"{pair.empty} draws nothing, {other} {pair.differing:,} px"
    return f"only A {pair.only_a:,} px, only B {pair.only_b:,} px, both {pair.both:,} px"
