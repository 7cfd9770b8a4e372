"""What at the common place belongs to which pipeline, so that what no pipeline needs can go.

Before a file is put there, the list that names it is: `pipelines/NAME/trees`. What a pipeline has
put goes when it has ended well, but for what the lists of others name. Should a file go while a
step of another pipeline is about to ask for it, that pipeline puts it again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from converters.files.json_files import parse_json
from zoo.pipeline.storage.transfer import PARTIAL, Place, Tree, blob, is_partial_of
from zoo.pipeline.storage.working import WORKING

_PIPELINES, _TREES, _SIGN = "pipelines", "trees", "sign.json"
# Seconds between signs of life; and after the last one in which a pipeline counts as alive.
_BETWEEN, ALIVE = 60.0, 600.0
_DAY = 86400.0


@dataclass(frozen=True)
class Held:
    """A pipeline that has something at the common place.

    Attributes:
        name: of it there.
        where: host and folder that it was started from; "" where that is not known.
        seconds: since its last sign of life; infinite where there is none.
        size: bytes that its steps have been brought.
    """

    name: str
    where: str
    seconds: float
    size: int


class Holdings:
    """What a pipeline has at the common place.

    Args:
        place: the common place.
        name: of the pipeline there.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name = place, name
        self._folder = f"{_PIPELINES}/{name}"
        self._signed = -_BETWEEN

    def sign(self, where: str) -> None:
        """Give a sign of life, if that was not done within the last minute.

        Args:
            where: the host and the folder that the pipeline was started from.
        """
        if time.monotonic() - self._signed >= _BETWEEN:
            text = json.dumps({"where": where, "time": round(time.time())})
            self.place.write_text(f"{self._folder}/{_SIGN}", text)
            self._signed = time.monotonic()

    def hold(self, tree: Tree) -> str:
        """Put down that files are needed, before they are put; return the name of their list."""
        return self.place.write_tree(tree, f"{self._folder}/{_TREES}")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all files that are needed, by digest.

        Raises:
            ValueError: a list is damaged.
        """
        found: dict[str, int] = {}
        for tree in self.place.listing(f"{self._folder}/{_TREES}"):
            # One of another pipeline may have gone just now.
            with suppress(FileNotFoundError):
                files = self.place.read_tree(f"{self._folder}/{_TREES}/{tree}")
                found |= {digest: size for size, digest in files.values()}
        return found

    def describe(self) -> Held:
        """Return what is known of the pipeline."""
        where, seconds = "", float("inf")
        with suppress(ValueError, TypeError, KeyError):
            sign = parse_json(self.place.read_text(f"{self._folder}/{_SIGN}").encode())
            where, seconds = str(sign["where"]), max(0.0, time.time() - float(sign["time"]))
        return Held(self.name, where, seconds, sum(self.sizes().values()))

    def clear(self) -> tuple[int, int]:
        """Remove all of it, but for files that other pipelines need; return files and bytes.

        Raises:
            ValueError: a list of another pipeline is damaged.
        """
        own = self.sizes()
        for name in names_at(self.place):
            if name != self.name:
                own = {d: size for d, size in own.items() if d not in _of(self.place, name)}
        absent = self.place.missing(own)
        gone = {digest: size for digest, size in own.items() if digest not in absent}
        self.place.remove_all([blob(digest) for digest in gone])
        # What a machine that died was about to put.
        left = [name for name in self.place.listing(PARTIAL) if is_partial_of(self.name, name)]
        self.place.remove_all([f"{PARTIAL}/{name}" for name in left])
        self.place.remove(f"{WORKING}/{self.name}")
        # Last: killed before, it is done again.
        self.place.remove(self._folder)
        return len(gone), sum(gone.values())


def names_at(place: Place) -> list[str]:
    """Return the names of all pipelines that have something at a place."""
    return sorted({*place.listing(_PIPELINES), *place.listing(WORKING)})


def clear_unheld(place: Place) -> int:
    """Remove files that no pipeline needs, and what has not become whole for a day; count them."""
    # The files first: whoever puts one later has said so before.
    there = place.listed()
    needed = {digest for name in names_at(place) for digest in _of(place, name)}
    old = [name for name in place.listing(PARTIAL) if _is_old(name)]
    names = [*(blob(digest) for digest in there - needed), *(f"{PARTIAL}/{name}" for name in old)]
    place.remove_all(names)
    return len(names)


def describe_place(place: Place) -> list[Held]:
    """Return the pipelines that have something at a place."""
    return [Holdings(place, name).describe() for name in names_at(place)]


def clear_pipelines(place: Place, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Remove what pipelines have at a place, by their names; return files and bytes of each.

    Raises:
        ValueError: there is no such pipeline, or it is at work.
    """
    found = {held.name: held for held in describe_place(place)}
    for name in names:
        if name not in found:
            known = ", ".join(found) or "none"
            raise ValueError(f"--pipeline {name}: expected one of those there ({known})")
        if found[name].seconds < ALIVE:
            raise ValueError(
                f"--pipeline {name}: expected one that is not at work, found a sign of life "
                f"{found[name].seconds:.0f} s old, of {found[name].where}: stop it first"
            )
    return {name: Holdings(place, name).clear() for name in names}


def _of(place: Place, name: str) -> dict[str, int]:
    return Holdings(place, name).sizes()


def _is_old(name: str) -> bool:
    since = re.match(r"\d+", name)
    return since is None or time.time() - int(since[0]) > _DAY
