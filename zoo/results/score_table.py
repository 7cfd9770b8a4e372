"""Scores as a table for a terminal, and whole as JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fusion.metrics.intervals import CONFIDENCE, Estimate
from fusion.metrics.scores import ObjectMatches, Scores
from fusion.metrics.summary import (
    QUALITIES,
    SHARED_MEASURES,
    Summary,
    compare,
    confusion_of,
    count_absent,
    count_people,
    describe_overlapping,
    has_several,
    people_of,
    pooled_iou,
    presence_of,
    summarize,
    summarize_objects,
    summarize_pairs,
)

CLASS_MEASURES = {
    "dice": "Dice",
    "iou": "IoU",
    "nsd": "NSD",
    "hd95": "HD95 px",
    "asd": "ASD px",
    "ber": "BER",
}
# Of these a pair of an image and a class has 1 where nothing is there and nothing was found.
_ONE_WHERE_ABSENT = ("dice", "iou", "nsd")
MOST_CONFUSED = 10
FEW = 5
_WIDTH = 98


def ordered_measures(scores: Scores, measures: Iterable[str]) -> list[str]:
    """Return the measures that classes have, what the label space is scored by first."""
    asked = [name for name in CLASS_MEASURES if name in measures]
    return sorted(asked, key=lambda name: name != "iou") if _by_iou(scores) else asked


def summarize_all(scores: Scores, measures: Sequence[str]) -> dict[str, Summary]:
    """Average every measure that classes have, and with Dice that of shared pixels."""
    return {name: summarize(scores, name) for name in _summarized(scores, measures)}


def compare_all(new: Scores, old: Scores, measures: Sequence[str]) -> dict[str, Summary]:
    """Average the differences new - old of every measure, as `summarize_all` does.

    Raises:
        ValueError: the scores are of other images or classes.
    """
    return {name: compare(new, old, name) for name in _summarized(new, measures)}


def _summarized(scores: Scores, measures: Iterable[str]) -> list[str]:
    has_shared = "dice" in measures and scores.labels.may_share
    return [*ordered_measures(scores, measures), *(SHARED_MEASURES if has_shared else ())]


def record(
    scores: Scores, measures: Sequence[str], summaries: Mapping[str, Summary]
) -> dict[str, Any]:
    """Return all that was measured as plain values for JSON.

    Args:
        scores: of the images.
        measures: that they were measured by.
        summaries: from `summarize_all`.
    """
    found = {
        **scores.record(),
        "patients": len(set(people_of(scores))),
        "confidence": CONFIDENCE,
        "absent": count_absent(scores).record(),
        "measures": {name: summary.record() for name, summary in summaries.items()},
        "per_image": _per_image(scores, summaries),
    }
    if "iou" in measures:
        found["miou"] = {"overall": _miou(scores), "classes": pooled_iou(scores)}
    if "overlap" in measures:
        found["pairs"] = _pairs_record(scores)
    if "confusion" in measures:
        found["confusion"] = [
            {"true": a, "predicted": b, "pixels": pixels, "predicted_is_right_too": right}
            for (a, b), (pixels, right) in confusion_of(scores).items()
        ]
    if "objects" in measures:
        found["objects"] = {n: own.record() for n, own in summarize_objects(scores).items()}
    if "presence" in measures:
        for name, listed in presence_of(scores).items():
            found[name] = [{"image": key, "class": label} for key, label in listed]
    return found


def _per_image(scores: Scores, measures: Iterable[str]) -> dict[str, Any]:
    def plain(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: v if math.isfinite(v) else None for name, v in values.items()}

    return {
        image.key: {
            "patient": image.patient,
            "posture": image.posture,
            "dice": plain(image.dice),
            "shared": plain(image.shared_dice),
            **{name: plain(image.measures[name]) for name in measures if name in image.measures},
            **({"objects": _counted(image.objects)} if image.objects else {}),
        }
        for image in scores.images
    }


def _counted(objects: Mapping[str, ObjectMatches]) -> dict[str, dict[str, float]]:
    return {
        name: {
            "true": own.true,
            "predicted": own.predicted,
            "matched": len(own.ious),
            "pq": own.pq,
        }
        for name, own in objects.items()
    }


def _pairs_record(scores: Scores) -> dict[str, Any]:
    dice, dice_each = summarize_pairs(scores, "dice")
    near, near_each = summarize_pairs(scores, "nsd")
    return {
        "dice": dice.record() if dice else None,
        "nsd": near.record() if near else None,
        "each": [
            {
                "classes": pair,
                "images": sum(pair in image.pairs for image in scores.images),
                "dice": dice_each[pair].record(),
                "nsd": near_each[pair].record(),
            }
            for pair in dice_each
        ],
    }


def describe(scores: Scores, measures: Sequence[str], summaries: Mapping[str, Summary]) -> str:
    """Return the scores as lines for a terminal; arguments as for `record`."""
    lines = [count_people(scores)]
    if "iou" in measures:
        miou = _miou(scores)
        said = "no class anywhere" if miou is None else f"{miou:.4f}"
        lines.append(f"mIoU {said} (pixels of all images together, then classes)")
    columns = {name: found for name, found in summaries.items() if name in CLASS_MEASURES}
    if columns:
        shared = _shared_of(summaries)
        lines += _table(scores, columns, shared, _value)
        lines += textwrap.wrap(describe_overlapping(scores), _WIDTH) if shared else ()
        lines += _absent_lines(scores, columns)
        lines += [
            f"{CLASS_MEASURES[name]} is without {found.infinite} missing or extra objects"
            for name, found in columns.items()
            if found.infinite
        ]
    if "overlap" in measures:
        lines += _pair_lines(scores)
    if "confusion" in measures:
        lines += _confusion_lines(scores)
    if "objects" in measures:
        lines += _object_lines(scores)
    if "presence" in measures:
        # Of several objects of a class it says only whether there is any.
        what_is = "classes of an image" if has_several(scores) else "objects"
        listed = presence_of(scores).items()
        lines += [_presence_line(f"{what} {what_is}", found) for what, found in listed]
    return "\n".join(lines)


def describe_comparison(
    scores: Scores,
    differences: Mapping[str, Summary],
    names: tuple[str, str],
    objects: Mapping[str, Mapping[str, Estimate | None]] | None = None,
) -> str:
    """Return differences of two predictions, the first minus the second, as lines for a terminal.

    Args:
        scores: of the one.
        differences: from `compare_all`.
        names: what the one and the other are called.
        objects: from `compare_objects`, where objects were measured.
    """
    columns = {name: found for name, found in differences.items() if name in CLASS_MEASURES}
    lines = [f"{names[0]} - {names[1]}; * where the 95 % interval over patients leaves out 0"]
    if columns:
        lines += _table(scores, columns, _shared_of(differences), _difference)
    if objects:
        heads = "".join(f"{head:>9s}" for head in QUALITIES.values())
        rows = [("objects", f"{heads}  PQ [95 %]")]
        for name, found in objects.items():
            cells = "".join(f"{_difference('pq', found[n]):>9s}" for n in QUALITIES)
            rows.append((f"  {name}", cells + _interval(found["pq"])))
        lines += aligned(rows)
    return "\n".join(lines)


def _interval(found: Estimate | None) -> str:
    span = found.interval if found else None
    return f"  [{span[0]:.4f}, {span[1]:.4f}]" if span else ""


def _shared_of(summaries: Mapping[str, Summary]) -> dict[str, Summary]:
    return {title: summaries[name] for name, title in SHARED_MEASURES.items() if name in summaries}


def _by_iou(scores: Scores) -> bool:
    # A class for the background is what mean IoU counts, and Dice of objects does not.
    labels = scores.labels
    return labels.background is not None or labels.exclusive is not None


def _miou(scores: Scores) -> float | None:
    each = pooled_iou(scores)
    return sum(each.values()) / len(each) if each else None


def _value(name: str, found: Estimate | None) -> str:
    digits = 2 if name in ("hd95", "asd") else 4
    return "-" if found is None else f"{found.mean:.{digits}f}"


def _absent_lines(scores: Scores, columns: Iterable[str]) -> list[str]:
    """Say how much of the means is of classes that are neither there nor found."""
    names = [CLASS_MEASURES[name] for name in columns if name in _ONE_WHERE_ABSENT]
    found = count_absent(scores)
    if not found.pairs or not names:
        return []
    others = "" if found.others is None else f"; mean Dice of the others {found.others:.4f}"
    return [
        f"{found.pairs} of {found.of} pairs of an image and a class count 1 in {', '.join(names)}: "
        f"nothing is there, and nothing was found{others}"
    ]


def _difference(name: str, found: Estimate | None) -> str:
    if found is None:
        return "-"
    digits = 2 if name in ("hd95", "asd") else 4
    return f"{found.mean:+.{digits}f}{'*' if found.is_sure else ' '}"


def _table(
    scores: Scores,
    columns: Mapping[str, Summary],
    shared: Mapping[str, Summary],
    cell: Callable[[str, Estimate | None], str],
) -> list[str]:
    first = next(iter(columns))
    head = "".join(f"{CLASS_MEASURES[name]:>9s}" for name in columns)
    rows = [("", f"{head}  {CLASS_MEASURES[first]} [95 %]")]

    def line(
        title: str, found: Mapping[str, Estimate | None], leading: Estimate | None = None
    ) -> tuple[str, str]:
        cells = "".join(f"{cell(n, found[n]) if n in found else '':>9s}" for n in columns)
        leading = leading or found.get(first)
        return title, cells + _interval(leading)

    rows.append(line("all", {n: s.overall for n, s in columns.items()}))
    for part in ("groups", "postures", "classes"):
        for title, summary in shared.items() if part == "classes" else ():
            rows.append(line(title, {"dice": summary.overall}, summary.overall))
            for group, found in summary.groups.items():
                rows.append(line(f"  of {group}", {"dice": found}, found))
        for name in getattr(columns[first], part):
            title = f"  {name}" if part == "classes" else f"{name}{_images(scores, part, name)}"
            rows.append(line(title, {n: getattr(s, part).get(name) for n, s in columns.items()}))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, str]], least: int = 18) -> list[str]:
    """Return titles and what follows them as lines, one column under the other."""
    width = max(least, *(len(title) + 1 for title, _ in rows))
    return [f"{title:{width}s}{rest}".rstrip() for title, rest in rows]


def _images(scores: Scores, part: str, name: str) -> str:
    if part != "postures":
        return ""
    return f" ({sum(image.posture == name for image in scores.images)})"


def _pair_lines(scores: Scores) -> list[str]:
    dice, dice_each = summarize_pairs(scores, "dice")
    near, near_each = summarize_pairs(scores, "nsd")
    if dice is None or near is None:
        return ["no two classes share a pixel"]
    title = "shared by two"
    rows = [(title, f"{'Dice':>9s}{'NSD':>9s}{'images':>9s}")]
    rows.append(("all pairs", f"{dice.mean:9.4f}{near.mean:9.4f}"))
    for pair, found in dice_each.items():
        count = sum(pair in image.pairs for image in scores.images)
        numbers = f"{found.mean:9.4f}{near_each[pair].mean:9.4f}{count:9d}"
        rows.append((f"  {' + '.join(pair)}", numbers))
    return aligned(rows, 34)


def _object_lines(scores: Scores) -> list[str]:
    classes = summarize_objects(scores)
    if not classes:
        return ["no objects, true or predicted"]
    heads = (*QUALITIES.values(), "true", "found", "matched")
    titles = "".join(f"{head:>9s}" for head in heads)
    rows = [("objects", f"{titles}  PQ [95 %]")]
    for name, own in classes.items():
        means = (own.pq, own.sq, own.rq, own.dsb)
        cells = "".join(f"{_value('pq', found):>9s}" for found in means)
        counts = f"{own.true:9d}{own.predicted:9d}{own.matched:9d}"
        rows.append((f"  {name}", f"{cells}{counts}{_interval(own.pq)}"))
    return aligned(rows)


def _confusion_lines(scores: Scores) -> list[str]:
    confusion = confusion_of(scores)
    if not confusion:
        return ["no pixel of a class is predicted as another instead"]
    rows = [("true, but predicted as", f"{'pixels':>9s}{'of these shared':>18s}")]
    for (true, other), (pixels, right) in list(confusion.items())[:MOST_CONFUSED]:
        rows.append((f"  {true}, {other}", f"{pixels:9d}{right:18d}"))
    lines = aligned(rows, 34)
    if (left := len(confusion) - MOST_CONFUSED) > 0:
        lines.append(f"  and {left} pairs more")
    return lines


def _presence_line(what: str, listed: Sequence[tuple[str, str]]) -> str:
    named = ", ".join(f"{label} in {key}" for key, label in listed[:FEW])
    rest = f" and {len(listed) - FEW} more" if len(listed) > FEW else ""
    return f"{what}: {len(listed)}" + (f" ({named}{rest})" if listed else "")
