"""What a data set is like, as sections of a page: plots and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from converters.describe import ClassDescription, Description, Spread
from zoo.report import plots

NOTHING = "\N{EN DASH}"
# A class is in the overlap plot if it shares this much with any other.
LEAST_IOU = 0.005
PAIRS = 20
AXES = {"age": "years", "weight": "kg", "height": "cm"}


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names them. `first` rows are open; 0: all of them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first: int = 0


@dataclass(frozen=True)
class Section:
    """A title, what it shows, plots, and a table."""

    name: str
    title: str
    lead: str
    plots: tuple[Markup, ...] = ()
    table: Table | None = None


def sections_of(description: Description) -> tuple[Section, ...]:
    """Return the sections that have something to show."""
    found = (_images(description), _posture(description), _areas(description))
    more = (_objects(description), _overlaps(description), _people(description))
    return tuple(s for s in (*found, *more) if s)


def _images(description: Description) -> Section:
    rows = [
        ("images", str(description.images)),
        ("with annotations", str(description.annotated)),
        ("patients", str(description.groups)),
        *((f"of {size} pixels", str(count)) for size, count in description.sizes.items()),
        *((f"of mode {mode}", str(count)) for mode, count in description.modes.items()),
    ]
    whole, shared = description.whole_px, description.shared_share
    if description.has_several:
        several = [own.objects for own in description.classes if own.objects]
        rows.append(("objects", f"{sum(round(own.mean * own.count) for own in several):,}"))
    if whole:
        what, _ = _whole(description)
        rows.append((f"annotated pixels of {what}, mean", f"{whole.mean:,.0f}"))
    if shared and len(description.classes) > 1:
        rows.append(("annotated pixels with two or more labels, mean", _percent(shared.mean)))
    lead = "Modes are Pillow's: L is 8 bits of grey."
    return Section("images", "Images", lead, (), Table(("", "number"), tuple(rows)))


def _posture(description: Description) -> Section | None:
    histogram, above = description.bend_deg, description.bent_above_deg
    if histogram is None or above is None or description.bent is None:
        return None
    lead = (
        "The angle between the long axes of the two classes that tell the posture. "
        f"{_percent(description.bent)} of {histogram.spread.count} images are bent."
    )
    plot = plots.plot_histogram(
        histogram,
        "",
        "degrees",
        threshold=above,
        threshold_text=f"bent above {above:g}",
        width=620,
    )
    return Section("posture", "Posture", lead, (plot,))


def _areas(description: Description) -> Section | None:
    known = [c for c in description.classes if c.area_share and c.area_share.quantiles[1] > 0]
    if not known:
        return None
    rows = {c.name: [100 * q for q in c.area_share.quantiles] for c in known if c.area_share}
    what, why = _whole(description)
    lead = (
        f"Area as a percentage of the whole ({what}{why}). Line: 5 to 95 % of the images; bar: the "
        "middle half; dot: the median. The table's other areas are pixels."
    )
    plot = plots.plot_ranges(rows, "% of the whole")
    columns = (
        "Class",
        "images",
        "in parts",
        "with holes",
        "vertices",
        "% of whole",
        "sd",
        "pixels",
        "sd",
        "5 %",
        "median",
        "95 %",
    )
    table = Table(columns, tuple(_class_row(c) for c in description.classes))
    # A class alone is the whole.
    return Section("areas", "Areas", lead, (plot,) if len(known) > 1 else (), table)


def _whole(description: Description) -> tuple[str, str]:
    """What areas are parts of, and why not of all."""
    cut = [c.name for c in description.classes if c.name not in description.whole]
    if not cut:
        return "all classes", ""
    return f"all classes but {' and '.join(cut)}", ", which the border cuts"


def _class_row(found: ClassDescription) -> tuple[str, ...]:
    share, area = found.area_share, found.area_px
    return (
        found.name,
        str(found.images),
        str(found.split or NOTHING),
        str(found.holed or NOTHING),
        f"{found.vertices.mean:.0f}" if found.vertices else NOTHING,
        f"{100 * share.mean:.2f}" if share else NOTHING,
        f"{100 * share.sd:.2f}" if share else NOTHING,
        *_pixels(area),
    )


def _pixels(area: Spread | None) -> tuple[str, ...]:
    if area is None:
        return (NOTHING,) * 5
    numbers = (area.mean, area.sd, area.quantiles[1], area.quantiles[3], area.quantiles[5])
    return tuple(f"{number:,.0f}" for number in numbers)


def _objects(description: Description) -> Section | None:
    """Objects one by one, where an image has several of a class."""
    if not description.has_several:
        return None
    rows = {own.name: list(own.objects.quantiles) for own in description.classes if own.objects}
    plot = plots.plot_ranges(rows, "objects in an image")
    lead = (
        "Objects in the images that have any of the class, and the pixels of single objects. Line: "
        "5 to 95 % of the images; bar: the middle half; dot: the median."
    )
    columns = (
        *("Class", "objects", "in an image: mean", "5 %", "median", "95 %", "most"),
        *("pixels: mean", "sd", "5 %", "median", "95 %"),
    )
    table = Table(columns, tuple(_object_row(own) for own in description.classes))
    return Section("objects", "Objects", lead, (plot,), table)


def _object_row(found: ClassDescription) -> tuple[str, ...]:
    each = found.objects
    if each is None:
        return (found.name, "0", *(NOTHING,) * 10)
    _, low, _, median, _, high, most = each.quantiles
    numbers = (f"{number:.0f}" for number in (low, median, high, most))
    total = f"{round(each.mean * each.count):,}"
    return (found.name, total, f"{each.mean:.1f}", *numbers, *_pixels(found.object_px))


def _overlaps(description: Description) -> Section | None:
    names = [c.name for c in description.classes]
    pairs = sorted(_pairs(description), key=lambda pair: -pair[2])
    meeting = {name for a, b, iou in pairs if iou >= LEAST_IOU for name in (a, b)}
    if not meeting:
        return None
    chosen = [i for i, name in enumerate(names) if name in meeting]
    matrix = [[description.shared[i][j] for j in chosen] for i in chosen]
    lead = (
        "What part of a class's pixels (row) another class (column) has too, over all images; "
        "classes that share next to nothing are left out. IoU is the mean over images with both."
    )
    rows = tuple(
        (
            f"{a}, {b}",
            f"{iou:.3f}",
            _percent(description.shared[names.index(a)][names.index(b)]),
            _percent(description.shared[names.index(b)][names.index(a)]),
        )
        for a, b, iou in pairs
        if iou >= LEAST_IOU
    )
    plot = plots.plot_matrix([names[i] for i in chosen], matrix)
    columns = ("Classes", "IoU", "of the first", "of the second")
    return Section("overlaps", "Overlaps", lead, (plot,), Table(columns, rows, PAIRS))


def _pairs(description: Description) -> Iterator[tuple[str, str, float]]:
    names = [c.name for c in description.classes]
    for i, a in enumerate(names):
        for j in range(i + 1, len(names)):
            if (iou := description.iou[i][j]) is not None:
                yield a, names[j], iou


def _people(description: Description) -> Section | None:
    drawn = [
        plots.plot_histogram(found, name, AXES.get(name, ""), noun="patients")
        for name, found in description.numbers.items()
    ]
    drawn += [
        plots.plot_counts(counts, name, "patients")
        for name, counts in description.categories.items()
    ]
    if not drawn:
        return None
    rows = tuple((name, *_numbers(found.spread)) for name, found in description.numbers.items())
    columns = ("", "mean", "sd", "least", "median", "most", "patients")
    table = Table(columns, rows) if rows else None
    lead = "What is known of the patients; each is counted once."
    return Section("people", "Patients", lead, tuple(drawn), table)


def _numbers(spread: Spread) -> tuple[str, ...]:
    least, median, most = spread.quantiles[0], spread.quantiles[3], spread.quantiles[6]
    numbers = (spread.mean, spread.sd, least, median, most)
    return (*(f"{number:.1f}" for number in numbers), str(spread.count))


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"
