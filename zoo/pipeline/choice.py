"""Which round's answer is taken: a later one where held-out images say that it is surely better."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from converters.files.json_files import dump_json, read_json
from converters.files.provenance import atomic_write_text


def choose(words: Sequence[str]) -> None:
    """Copy the answer that is best on held-out images, and write down why.

    Args:
        words: files of what `zoo evaluate --against` said of later rounds, each beside the round's
            answer; then the first round's answer, where to copy the best one, and a file (JSON) for
            the reasons.

    Raises:
        ValueError: a file that `zoo evaluate` did not write.
    """
    *judged, first, out, reasons = map(Path, words)
    best, gain = first, 0.0
    record = []
    for file in judged:
        mean, interval = _gain(file)
        # With few patients nothing is sure, and the first answer stays.
        is_better = interval is not None and interval[0] > 0 and mean > gain
        if is_better:
            best, gain = file.with_name(out.name), mean
        record.append({"round": file.parent.name, "gain": mean, "interval": interval})
        told = f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
        print(f"{file.parent.name}: {mean:+.4f}{told} Dice on held-out images")
    is_first = best == first
    print("the first answer is kept" if is_first else f"the answer of {best.parent.name} is taken")
    shutil.copyfile(best, out.with_name(f".{out.name}.partial"))
    out.with_name(f".{out.name}.partial").replace(out)
    atomic_write_text(reasons, dump_json({"taken": best.parent.name, "rounds": record}))


def _gain(file: Path) -> tuple[float, tuple[float, float] | None]:
    found = read_json(file, "scores")
    try:
        about = found["against"]["dice"]["overall"]
        interval = about.get("interval")
        return float(about["mean"]), tuple(interval) if interval else None
    except (KeyError, TypeError):
        raise ValueError(f"{file}: expected a comparison by `zoo evaluate --against`") from None
