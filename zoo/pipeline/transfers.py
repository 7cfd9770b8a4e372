"""What a pipeline knows of the places through which its machines exchange files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from converters.files.json_files import read_json
from converters.files.provenance import atomic_write_text
from zoo.pipeline.record import Record, slug
from zoo.pipeline.steps import Step
from zoo.pipeline.storage.holdings import Holdings
from zoo.pipeline.storage.transfer import Place
from zoo.pipeline.storage.working import WORKING, Working

TRANSFERS = "transfers.json"


@dataclass(frozen=True)
class Transfers:
    """What is kept of transfers in a pipeline's folder.

    Attributes:
        pipeline: what it is called at common places.
        through: the places that it has put something to, as they were given.
        waiting: bytes that wait to be moved, by step and direction.
    """

    pipeline: str = ""
    through: tuple[str, ...] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, out: Path) -> Transfers:
        """Read what is kept in a pipeline's folder; what is damaged is nothing."""
        file = out / TRANSFERS
        if not file.is_file():
            return cls()
        with suppress(ValueError, TypeError, AttributeError):
            found = read_json(file, "what waits to be moved")
            name, through = found.get("pipeline", ""), found.get("through", [])
            if isinstance(name, str) and (name.isalnum() or not name):
                waiting = {str(k): int(v) for k, v in found.get("waiting", {}).items()}
                return cls(name, tuple(map(str, through)), waiting)
        return cls()

    def write(self, out: Path) -> None:
        """Keep this in a pipeline's folder."""
        out.mkdir(parents=True, exist_ok=True)
        record = {"pipeline": self.pipeline, "through": self.through, "waiting": self.waiting}
        atomic_write_text(out / TRANSFERS, json.dumps(record) + "\n")


def working_folder(pipeline: str, step: Step, key: str) -> str:
    """Return where at a common place lies what a step has made so far."""
    return f"{WORKING}/{pipeline}/{slug(step.name)}-{key}"


def bring_back(step: Step, begun: Record, out: Path) -> tuple[bool, str]:
    """Bring what a step has made through a common place into the pipeline's folder.

    Args:
        step: is to go on here, or through another place.
        begun: its record, which names the place.
        out: the pipeline's folder.

    Returns:
        Whether the step had ended well there; and what has to be said of it, in a line.
    """
    try:
        folder = working_folder(Transfers.read(out).pipeline, step, begun.key)
        working = Working(Place(begun.through), folder)
        state = working.read()
        moved: list[int] = []
        working.bring(state, [path.absolute() for path in step.makes], moved.append)
    except (OSError, ValueError, ImportError) as error:
        told = f"what it has made through {begun.through} cannot be brought from there ({error})"
        return False, f"{told}: {_from_here(step)}"
    if state.files or state.has_ended:
        working.remove()
        return state.has_ended, f"{sum(moved) / 1e6:.1f} MB brought back from {begun.through}"
    return False, f"nothing that it has made is at {begun.through}: {_from_here(step)}"


def _from_here(step: Step) -> str:
    is_here = any(path.exists() for path in step.makes)
    return "it goes on with what is here" if is_here else "it begins anew"


def clear_places(out: Path) -> list[str]:
    """Remove what a pipeline has at common places; return a line for each of them."""
    kept, lines, left = Transfers.read(out), [], []
    for url in kept.through:
        try:
            count, size = Holdings(Place(url), kept.pipeline).clear()
            lines.append(f"{url}: {count} files removed, {size / 1e9:.2f} GB")
        except (OSError, ValueError, ImportError) as error:
            left.append(url)
            lines.append(
                f"note: {url}: what this pipeline has there is left ({error}); "
                f"zoo clear {url} --pipeline {kept.pipeline} removes it"
            )
    if kept.through:
        replace(kept, through=tuple(left), waiting={}).write(out)
    return lines
