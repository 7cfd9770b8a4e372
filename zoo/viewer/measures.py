"""What images are sorted by: areas, Dice against the truth, disagreement between sources."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from converters.masks import EMPTY, CropMask
from fusion.metrics.objects import match_objects
from fusion.metrics.scores import count

Masks = Mapping[str, CropMask]
Objects = Mapping[str, Sequence[CropMask]]
# While somebody turns pages, measuring waits so long after the last one.
QUIET_S = 0.4


@dataclass(frozen=True)
class StructureRow:
    """One class on one image, in pixels of the image's own resolution.

    Attributes:
        key: the image.
        label: the class.
        true_px: area in the truth; None where the image has none.
        source_px: source -> area.
        dice: source -> Dice against the truth; empty without truth.
        between: Dice of each two sources, by their names in the sources' order.
        pq: source -> panoptic quality against the truth; empty where no class has several objects.
        pq_between: that of each two sources.
    """

    key: str
    label: str
    true_px: int | None
    source_px: Mapping[str, int] = field(default_factory=dict)
    dice: Mapping[str, float] = field(default_factory=dict)
    between: Mapping[tuple[str, str], float] = field(default_factory=dict)
    pq: Mapping[str, float] = field(default_factory=dict)
    pq_between: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def area_px(self) -> int:
        """The true area; without truth the mean of the sources'."""
        if self.true_px is not None:
            return self.true_px
        return round(_mean(self.source_px.values()) or 0)

    @property
    def mean_dice(self) -> float | None:
        """Mean over the sources; None without truth or sources."""
        return _mean(self.dice.values())

    @property
    def mean_pq(self) -> float | None:
        """Mean over the sources; None where objects are not measured."""
        return _mean(self.pq.values())

    @property
    def disagreement(self) -> float | None:
        """1 - mean Dice over pairs of sources; None with fewer than two."""
        found = _mean(self.between.values())
        return None if found is None else 1 - found


@dataclass(frozen=True)
class ImageRow:
    """One image over the classes that occur on it.

    Attributes:
        key: the image.
        rows: of its classes, in the label space's order.
    """

    key: str
    rows: tuple[StructureRow, ...]

    @property
    def area_px(self) -> int:
        """Sum over the classes; shared pixels count for each."""
        return sum(row.area_px for row in self.rows)

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes."""
        return _mean(row.mean_dice for row in self.rows)

    @property
    def mean_pq(self) -> float | None:
        """Mean over the classes."""
        return _mean(row.mean_pq for row in self.rows)

    @property
    def disagreement(self) -> float | None:
        """Mean over the classes."""
        return _mean(row.disagreement for row in self.rows)

    def between(self, pair: tuple[str, str]) -> float | None:
        """Return the mean Dice between two sources over the classes."""
        return _mean(row.between.get(pair) for row in self.rows)

    def worst(self) -> StructureRow | None:
        """Return the class of the lowest Dice; without truth that of the most disagreement."""
        known = [row for row in self.rows if _badness(row) is not None]
        return max(known, key=lambda row: _badness(row) or 0.0, default=None)


def _badness(row: StructureRow) -> float | None:
    dice = row.mean_dice
    return row.disagreement if dice is None else 1 - dice


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def measure_image(
    key: str,
    truth: Masks | None,
    sources: Mapping[str, Masks],
    names: Sequence[str],
    compared: Sequence[str] | None = None,
    objects: Mapping[str, Objects] | None = None,
    true_objects: Objects | None = None,
) -> ImageRow:
    """Measure the classes of an image on crops: no dense planes.

    Args:
        key: the image.
        truth: class -> mask; None where the image has none.
        sources: source -> class -> mask; a class of which a source does not speak is absent.
        names: the classes, in order; one that nobody draws has no row.
        compared: the sources that are compared with each other; None is all.
        objects: source -> class -> its objects one by one, to be measured, too.
        true_objects: class -> its true objects; None without truth.
    """
    rows = []
    pairs = list(combinations(sources if compared is None else compared, 2))
    drawn = objects or {}
    for name in names:
        true = None if truth is None else truth.get(name, EMPTY)
        masks = {source: found[name] for source, found in sources.items() if name in found}
        areas = {source: mask.area for source, mask in masks.items()}
        if not (true is not None and true.area) and not any(areas.values()):
            continue
        dice = {} if true is None else {s: count(mask, true).dice for s, mask in masks.items()}
        between = {
            (a, b): count(masks[a], masks[b]).dice for a, b in pairs if a in masks and b in masks
        }
        own = {source: found.get(name, ()) for source, found in drawn.items() if source in masks}
        real = () if true_objects is None else true_objects.get(name, ())
        # Without truth nothing is true, and without objects there is nothing to match.
        scored = {} if true is None else {s: o for s, o in own.items() if o or real}
        pq = {source: match_objects(found, real).pq for source, found in scored.items()}
        both = {(a, b): (own[a], own[b]) for a, b in between if own}
        pq_between = {pair: match_objects(*two).pq for pair, two in both.items() if any(two)}
        area = None if true is None else true.area
        rows.append(StructureRow(key, name, area, areas, dice, between, pq, pq_between))
    return ImageRow(key, tuple(rows))


class Measurements:
    """Measures all images one after the other in a thread, while others look at them.

    Args:
        keys: of the images.
        measure: measures one; a ValueError leaves the image out.
    """

    def __init__(self, keys: Iterable[str], measure: Callable[[str], ImageRow]) -> None:
        self._measure = measure
        self._waiting = deque(keys)
        self._rows: dict[str, ImageRow] = {}
        self._errors: dict[str, str] = {}
        self._total = len(self._waiting)
        self._version = 0
        self._wanted = threading.Condition()
        self._last_page = -QUIET_S
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if that has not been done yet."""
        with self._wanted:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="measuring", daemon=True)
                self._thread.start()

    def touch(self) -> None:
        """Say that somebody turns a page: it comes first."""
        self._last_page = time.monotonic()

    def renew(self, keys: Iterable[str]) -> None:
        """Measure images anew, before all others."""
        with self._wanted:
            for key in keys:
                self._rows.pop(key, None)
                self._errors.pop(key, None)
                if key in self._waiting:
                    self._waiting.remove(key)
                self._waiting.appendleft(key)
            self._version += 1
            self._wanted.notify_all()

    @property
    def rows(self) -> dict[str, ImageRow]:
        """Key -> what has been measured so far."""
        with self._wanted:
            return dict(self._rows)

    @property
    def version(self) -> int:
        """Another number whenever `rows` has changed."""
        with self._wanted:
            return self._version

    @property
    def errors(self) -> dict[str, str]:
        """Key -> why an image cannot be measured."""
        with self._wanted:
            return dict(self._errors)

    @property
    def progress(self) -> tuple[int, int]:
        """Images done, and images in all."""
        with self._wanted:
            return len(self._rows) + len(self._errors), self._total

    def wait(self, timeout_s: float) -> bool:
        """Wait until all is measured; tell whether it is."""
        with self._wanted:
            return self._wanted.wait_for(
                lambda: len(self._rows) + len(self._errors) >= self._total, timeout_s
            )

    def _work(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: bool(self._waiting))
                key = self._waiting.popleft()
            while (left := self._last_page + QUIET_S - time.monotonic()) > 0:
                time.sleep(left)
            try:
                row = self._measure(key)
            except (OSError, ValueError) as error:
                with self._wanted:
                    self._errors[key] = str(error)
                    self._wanted.notify_all()
                continue
            with self._wanted:
                if key not in self._waiting:
                    self._rows[key] = row
                    self._version += 1
                self._wanted.notify_all()
