"""What people look at now, kept ready: the last drawings, and those of the next images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from zoo.viewer.collection import TRUTH, Collection
from zoo.viewer.drawing import draw_image

KEPT = 12
_Place = tuple[str, tuple[str, ...] | None, str, str]


class Desk:
    """Draws images of a collection, and keeps the last drawings.

    Args:
        collection: whose images are drawn.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._kept: OrderedDict[_Place, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._ahead = ThreadPoolExecutor(1, "drawing")

    def draw(
        self, key: str, names: Sequence[str] | None = None, against: str = TRUTH
    ) -> dict[str, Any]:
        """Return the canvas's arguments for an image; see `draw_image`.

        They have a `token` besides, which is another one for another drawing.

        Raises:
            ValueError: as `Collection.show`.
        """
        self.collection.measurements.touch()
        place = self._place(key, names, against)
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        drawn = draw_image(self.collection, self.collection.show(key), names, against)
        drawn["token"] = " ".join(map(str, place))
        with self._lock:
            self._kept[place] = drawn
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return drawn

    def prepare(
        self, keys: Iterable[str], names: Sequence[str] | None = None, against: str = TRUTH
    ) -> None:
        """Draw images ahead, in a thread: those that are likely looked at next."""
        for key in keys:
            if self._place(key, names, against) not in self._kept:
                self._ahead.submit(self._try, key, names, against)

    def _try(self, key: str, names: Sequence[str] | None, against: str) -> None:
        # Whoever looks at it is told what is wrong.
        with suppress(OSError, ValueError):
            self.draw(key, names, against)

    def _place(self, key: str, names: Sequence[str] | None, against: str) -> _Place:
        chosen = None if names is None else tuple(names)
        return key, chosen, against, self.collection.edits.digest
