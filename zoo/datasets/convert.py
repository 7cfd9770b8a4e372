"""From one annotation format to another, with the loss measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import converters
from converters.files.images import count_windowed
from converters.files.names import alike_names, tell_alike
from converters.files.provenance import made_of
from converters.splits.split import GIVEN, Split
from converters.subsets.keys import is_test_key
from converters.types import Frame, Instance, Sample
from zoo.datasets.crop import CropPlan, crop_samples, open_enlarger
from zoo.datasets.split import check_apart, own_parts
from zoo.progress import Report, note
from zoo.source import DataSource

_LOSSLESS = "nothing was lost: every object's pixels come back as they were"
_AS_READ = (
    "every object that was read comes back with its pixels; what was left out, or read in another "
    "way, is said above"
)
_OF_CROPS = "what lies in them comes back as it was"
_OF_CHOSEN = "of the classes that were asked for, "


def convert(
    data: DataSource,
    to: str,
    out: Path,
    labels_name: str | None,
    *,
    subset: str = "train",
    split_path: Path | None = None,
    fold: int = 0,
    layout: str = "",
    crop_plan: CropPlan | None = None,
    jobs: int = 1,
    links: bool = False,
    command: Sequence[str],
    report: Report,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, str]:
    """Convert a data set; return the number of images and what was lost, in words.

    Takes what the options of `zoo convert` are, and `say`, which is told of images in which a
    crop's first stage sees none of the classes.

    Raises:
        ValueError: unreadable data, a format that cannot be written, a place that is not
            ours to replace, or a split of other images.
    """
    converters.check_target(out, to, layout)
    labels = data.labels(labels_name)
    told: list[str] = []
    samples = data.of_split(split_path).read(labels, subset, told.append)
    for text in told:
        note(text)
    if not samples:
        left = " that the corrections leave" if data.edits else ""
        raise data.nothing_in(subset, left)
    if subset == "all":
        check_apart(data, data.list_part("train", labels), labels)
    split = Split.load(split_path) if split_path else None
    learnt = frozenset(split.train(fold)) if split else frozenset()
    written = crop_samples(samples, crop_plan, labels, learnt, say) if crop_plan else samples
    loss = converters.write(
        written,
        out,
        format=to,
        labels=labels,
        split=split,
        fold=fold,
        excluded=data.excluded,
        layout=layout,
        jobs=jobs,
        enlarge=open_enlarger(crop_plan) if crop_plan else None,
        links=links,
        provenance={**_provenance(data, crop_plan, command), **made_of(out, data.path)},
        progress=lambda done, total: report(done, total, ""),
    )
    uses = Counter(label for sample in samples for label in sample.labels)
    for alike in alike_names(uses):
        note(tell_alike(*alike))
    if all(is_test_key(sample.key) for sample in samples):
        # Some formats tell parts by keys, which stay, others by folders or files of parts.
        stay = DataSource.open(out, to).list_part("test")
        say(
            f"all {len(samples)} are test images: "
            + (
                "they stay so, and are read by --subset test"
                if stay
                else "with no others beside them they are written as a data set's only part, as "
                "images to learn from are"
            )
        )
    elif split is None:
        _say_undivided(to, own_parts(samples), say)
    if subset == "train" and (tests := data.count_tests(labels)):
        are = "s are" if tests > 1 else " is"
        say(f"{tests} test image{are} left out: --subset all takes all")
    if windowed := count_windowed(samples):
        say(
            f"{windowed} images (DICOM, or grey of 16 bits) are written as 8 bits, as networks see "
            "them: by the window that a file states, else from its 0.5 to its 99.5 percentile"
        )
    if not any(sample.instances for sample in samples):
        return len(samples), "no objects: there was nothing to lose"
    if crop_plan:
        return len(samples), _describe_crops(samples, written, loss.describe())
    if told:
        return len(samples), loss.describe() or _AS_READ
    return len(samples), loss.describe() or (_OF_CHOSEN if labels_name else "") + _LOSSLESS


def _describe_crops(samples: Sequence[Sample], crops: Sequence[Sample], loss: str) -> str:
    """Say what of the objects lies outside of the crops, and what was lost of the rest."""
    windows = {crop.key: crop.frame for crop in crops}
    found = sum(len(sample.labels) for sample in samples)
    kept = sum(len(crop.labels) for crop in crops)
    whole = sum(
        _is_in(instance, frame)
        for sample in samples
        if (frame := windows[sample.key]) is not None
        for instance in sample.instances
    )
    beyond = f"of {found} objects the crops leave out {found - kept} and cut {kept - whole}"
    return f"{beyond} at their edges; {loss or _OF_CROPS}"


def _is_in(instance: Instance, frame: Frame) -> bool:
    """Tell whether a whole object lies in a crop."""
    x, y, width, height = frame.box_xywh
    left, top, right, bottom = (round(edge) for edge in instance.geometry.bounds)
    return x <= left and y <= top and right < x + width and bottom < y + height


def _say_undivided(to: str, own: Sequence[str], say: Callable[[str], None]) -> None:
    """Say that nothing is held out, where one may expect it, and how it would be."""
    without = getattr(converters.load_format(to), "WITHOUT_VAL", "")
    lacks = f"no validation part{without and f' ({without})'}"
    if own:
        say(
            f"the data set's own parts {', '.join(own)} become one, all to learn from, with "
            f"{lacks}; --split SPLIT.json tells what is held out: `zoo split` deals anew, "
            f"`zoo split --strategy {GIVEN}` keeps the data set's own"
        )
    elif without:
        say(f"{lacks}: --split SPLIT.json, from `zoo split`, holds images out")


def _provenance(data: DataSource, plan: CropPlan | None, command: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"command": list(command)}
    if plan:
        told = {name: str(value) for name, value in vars(plan).items()}
        record["config"] = {"crop": {**told, "around": list(plan.around)}}
    if data.edits:
        record["edits"] = data.edits.digest
    return record
