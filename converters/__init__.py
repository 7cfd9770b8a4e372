"""Annotations: their types, their pixels, and the formats they are read from and written to.

In a notebook:

    from pathlib import Path
    import converters, fusion

    labels = converters.label_space(Path("data"))                 # a data set's own classes
    samples = converters.read(Path("data"), labels=labels)        # any format
    converters.show(samples[0], labels)                           # a sample shows itself, too
    sources = [fusion.PredictionStore(Path(p)) for p in ("val/unet", "val/yolo")]   # zoo predict
    fused = fusion.fuse(sources, labels, "mean")                  # or a file of zoo fit
    fusion.score(fused, samples, labels).mean()                   # mean Dice
    by_key = {sample.key: sample for sample in samples}
    fusion.show(fused[0], by_key[fused[0].key], labels)

`docs/notebook.ipynb` does it. What `zoo fit` and `zoo fuse` do beyond it is theirs.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from converters.display import register
from converters.errors import DataError, MissingDependency, Problem, Problems, did_you_mean
from converters.recognition.location import Location
from converters.recognition.location import locate as locate
from converters.recognition.location import recognise as recognise
from converters.recognition.registry import FORMATS, is_data_set, load_format
from converters.recognition.registry import unknown_format as unknown_format
from converters.recognition.registry import written_formats as written_formats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import ModuleType

    from converters.edits.contract import Corrections
    from converters.files.images import Enlarge
    from converters.formats.label_spaces import OwnLabels
    from converters.loss import ConversionLoss
    from converters.pictures.figure import Picture
    from converters.splits.split import Split
    from converters.types import LabelSpace, Sample

__all__ = [
    "FORMATS",
    "SUBSETS",
    "DataError",
    "MissingDependency",
    "Problem",
    "check_target",
    "is_data_set",
    "label_space",
    "list_images",
    "load_format",
    "own_labels",
    "read",
    "scan",
    "show",
    "split",
    "write",
]

SUBSETS = ("train", "test", "all")


def label_space(data: Path | str, *, format: str | None = None) -> LabelSpace:
    """Return a data set's own classes: what it was written with, or what its files name.

    Args:
        data: its folder, or one of its annotation files, see `locate`.
        format: the format's name; None recognises it by the content.

    Raises:
        ValueError: an unknown format, or its classes have no names.
    """
    return own_labels(data, format=format).required(Path(data))


def own_labels(data: Path | str, *, format: str | None = None) -> OwnLabels:
    """Return a data set's own classes, to be given to `read`, which asks the files otherwise.

    Takes what `label_space` takes.

    Raises:
        ValueError: an unknown format, or the file that names the classes is broken.
    """
    from converters.formats.label_spaces import OwnLabels

    place = locate(data, format)
    return OwnLabels.of(load_format(place.format), place.folder, place.annotations)


def read(
    data: Path | str,
    *,
    format: str | None = None,
    subset: str = "train",
    labels: LabelSpace | None = None,
    edits: Corrections | None = None,
    note: Callable[[str], None] | None = None,
    skips_broken: bool = False,
    own: OwnLabels | None = None,
    images: Path | None = None,
) -> list[Sample]:
    """Read a data set in any readable format.

    Args:
        data: its folder, or one of its annotation files, see `locate`: that one alone is read.
        format: the format's name; None recognises it by the content.
        subset: `train`, `test` or `all`; test samples may have no instances.
        labels: the classes; those of the data set are found by name or alias, and what is none of
            them is left out, and said. None takes the data set's own.
        edits: corrections, applied to what was read; the files stay as they are.
        note: told of what is no error, but has to be said, such as files that were left out.
        skips_broken: leave out images of which something is broken, and say so; with an object
            missing, a network would learn that nothing is there.
        own: what `own_labels` has found; None asks the files.
        images: a folder with the images, where they do not lie with the annotations.

    Returns:
        Samples, sorted by key.

    Raises:
        DataError: files that are broken or do not fit together, all in one error.
        ValueError: an unknown format or subset, a format that cannot be read, a data set that has
            none of the classes, or edits of other images.
    """
    samples, problems = _read(data, format, subset, labels, own, images)
    excluded = edits.excluded if edits else frozenset()
    if skips_broken:
        broken = problems.skip(excluded)
        samples = [sample for sample in samples if sample.key not in broken]
    problems.check(excluded)
    _tell(problems, note)
    if edits is None:
        return samples
    labels = labels or (own or own_labels(data, format=format)).required(Path(data))
    return edits.apply(samples, subset=subset, labels=labels, problems=problems.found)


def scan(
    data: Path | str,
    *,
    format: str | None = None,
    subset: str = "train",
    labels: LabelSpace | None = None,
    note: Callable[[str], None] | None = None,
    own: OwnLabels | None = None,
    images: Path | None = None,
) -> tuple[list[Sample], list[Problem]]:
    """Read what can be read of a data set, and say what cannot.

    Takes what `read` takes but corrections.

    Returns:
        Samples, sorted by key, without what is broken in them; and everything that is wrong.

    Raises:
        ValueError: an unknown format or subset, or a format that cannot be read.
    """
    samples, problems = _read(data, format, subset, labels, own, images)
    _tell(problems, note)
    return samples, problems.found


def list_images(
    data: Path | str,
    *,
    format: str | None = None,
    subset: str = "train",
    note: Callable[[str], None] | None = None,
) -> list[Sample]:
    """List a data set's images without what is annotated on them; no mask is decoded for it.

    Args:
        data: its folder.
        format: as for `read`, like the next two.
        subset: `train`, `test` or `all`.
        note: told of what has to be said.

    Returns:
        Samples without instances, sorted by key. An image of which but the masks are broken is
        among them.

    Raises:
        DataError: files that are broken or do not fit together.
        ValueError: an unknown format or subset.
    """
    from converters.subsets.reading import read_parts

    place = _located(data, format, subset)
    module = load_format(place.format)
    if not hasattr(module, "list_images"):
        # As it was found: to recognise it again would look at all its files.
        found = read(data, format=place.format, subset=subset, note=note)
        return [replace(sample, instances=()) for sample in found]
    problems = Problems(place.folder)

    def list_them(part: str, found: Problems) -> list[Sample]:
        listed = module.list_images(place.folder, subset=part, problems=found)
        return cast("list[Sample]", listed)

    form = "" if place.annotations else place.format
    found = _sorted(read_parts(place.folder, form, subset, list_them, problems), problems)
    problems.check()
    _tell(problems, note)
    return found


def _located(data: Path | str, format: str | None, subset: str) -> Location:
    if subset not in SUBSETS:
        raise ValueError(f"subset '{subset}': expected one of {', '.join(SUBSETS)}")
    if format is not None:
        load_format(format)  # of an unknown one that is said first
    return locate(data, format)


def _read(
    data: Path | str,
    format: str | None,
    subset: str,
    labels: LabelSpace | None,
    own: OwnLabels | None,
    images: Path | None,
) -> tuple[list[Sample], Problems]:
    from converters.files.json_files import without_collection
    from converters.formats.label_spaces import OwnLabels, relabel
    from converters.subsets.reading import read_parts

    place = _located(data, format, subset)
    module = load_format(place.format)
    places = _places(place, module, images)
    problems = Problems(place.folder)
    own = own or OwnLabels.of(module, place.folder, place.annotations)
    wanted = labels or own.fullest
    # Files that name no classes are read as if theirs were those that are wanted, by number.
    named = own.named or wanted or own.required(place.folder)
    if wanted is not None and named.exclusive is None:
        named = replace(named, exclusive=wanted.exclusive)

    def read_them(part: str, told: Problems) -> list[Sample]:
        read_part = partial(module.read, place.folder, subset=part, labels=named, problems=told)
        return cast("list[Sample]", read_part(**places))

    with without_collection():
        form = "" if place.annotations else place.format
        found = read_parts(place.folder, form, subset, read_them, problems)
    if wanted is not None:
        # Some of its own classes are called as all of them.
        is_part = own.fullest is not None and wanted.name == own.fullest.name
        found = relabel(found, named, wanted, problems, is_part)
    is_empty = not any(sample.instances for sample in found)
    if found and is_empty and subset == "train" and place.format != "images":
        problems.note(
            f"{place.folder}: none of its {len(found)} images has an object of the classes that "
            f"are wanted ({', '.join((wanted or named).names):.120})"
        )
    return _sorted(found, problems), problems


def _sorted(found: Sequence[Sample], problems: Problems) -> list[Sample]:
    from converters.files.images import with_spacing

    samples: dict[str, Sample] = {}
    for sample in found:
        if (other := samples.setdefault(sample.key, sample)) is not sample:
            what = f"expected one image of this key, found {other.image} and {sample.image}: "
            what += "rename one of them, or move it away"
            problems.add(sample.key, what, key=sample.key, group=sample.group)
    return [with_spacing(samples[key]) for key in sorted(samples)]


def _places(place: Location, module: ModuleType, images: Path | None) -> dict[str, Path]:
    """Return where a format's reader looks, beside the folder."""
    found = {"annotations": place.annotations} if place.annotations else {}
    if images is None:
        return found
    if "images" not in inspect.signature(module.read).parameters:
        name = place.format
        raise ValueError(f"--images: format '{name}': expected one whose images may lie elsewhere")
    if not images.is_dir():
        raise ValueError(f"--images: expected a folder, found none: {images}")
    return {**found, "images": images}


def _tell(problems: Problems, note: Callable[[str], None] | None) -> None:
    if note:
        for text in problems.notes:
            note(text)


def check_target(out: Path, format: str, layout: str = "") -> str:
    """Say before data are read whether `write` will take a place, a format and a layout.

    Returns:
        The layout, also where it was not named.

    Raises:
        ValueError: as `write`.
    """
    from converters.files.provenance import check_place

    chosen = _check_layout(format, layout)
    check_place(out, format)
    return chosen


def _check_layout(format: str, layout: str) -> str:
    """Return the layout that will be written, also where it was not named."""
    module = load_format(format)
    if not hasattr(module, "write"):
        known = ", ".join(written_formats())
        raise ValueError(f"format '{format}': expected one that can be written: {known}")
    if (chosen := layout or next(iter(module.LOSES))) not in module.LOSES:
        near, known = did_you_mean(layout, module.LOSES), ", ".join(module.LOSES)
        raise ValueError(f"layout '{layout}'{near}: expected one of {format}'s: {known}")
    return str(chosen)


def write(
    samples: Sequence[Sample],
    out: Path | str,
    *,
    format: str,
    labels: LabelSpace,
    split: Split | None = None,
    fold: int = 0,
    excluded: Collection[str] = (),
    layout: str = "",
    jobs: int = 1,
    enlarge: Enlarge | None = None,
    links: bool = False,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionLoss:
    """Write samples as a data set; it appears whole or not at all.

    Args:
        samples: what to write.
        out: the result's folder; a previous result of this format is replaced.
        format: the format's name.
        labels: the classes, in the order of their numbers.
        split: decides what goes to validation; without it all goes to training.
        fold: the fold of the split that is held out.
        excluded: keys and groups that the split may have though they are not among the samples.
        layout: one that the format's `LOSES` names; "" takes the first of them.
        jobs: processes; the result does not depend on their number.
        enlarge: how crops come to their size; None takes Lanczos' kernel.
        links: images become hard links where possible; else copies, which can be changed without
            harm to the source.
        provenance: command, config and seed for `provenance.json`.
        progress: called with (done, total).

    Returns:
        What the format could not hold.

    Raises:
        ValueError: an unknown format, layout or label, a format that cannot be written, a split of
            other images, or `out` is not ours to replace.
        OSError: an image that is not there.
    """
    out = Path(out)
    from converters.files.images import lanczos
    from converters.formats.writing import WriteTarget, data_set_folder
    from converters.subsets.keys import test_keys

    # The place is looked at, file by file, when it is taken.
    chosen = _check_layout(format, layout)
    test = test_keys(samples)
    if split:
        split.check([sample for sample in samples if sample.key not in test], excluded)
    held_out = split.val(fold) if split else ()
    record = {**(provenance or {}), "labels": labels.record()}
    with data_set_folder(out, format, samples, split, fold, record) as folder:
        target = WriteTarget(
            folder=folder,
            labels=labels,
            held_out=frozenset(held_out),
            folds=tuple(map(frozenset, split.folds)) if split else (),
            test=test,
            layout=chosen,
            jobs=jobs,
            enlarge=enlarge or lanczos,
            links=links,
            progress=progress,
        )
        return cast("ConversionLoss", load_format(format).write(samples, target))


def split(
    samples: Sequence[Sample],
    folds: int = 5,
    seed: int = 0,
    strategy: str = "group",
    labels: LabelSpace | None = None,
    *,
    group_by: str = "",
    tables: Sequence[Path | str] = (),
) -> Split:
    """Deal samples into folds as `zoo split` does: all images of a patient go to the same one.

    Versions of one image by Roboflow's names stay together, too. Samples get the patients that a
    split knows by `converters.splits.grouping.with_groups(samples, split.groups)`.

    Args:
        samples: what is divided.
        folds: 2 or more.
        seed: of the shuffle.
        strategy: `group` or `stratified`; see `converters.splits.split.make_split`.
        labels: lets `stratified` spread bent images too.
        group_by: whose an image is, where the samples do not say it: `folder`, `FILE.csv:COLUMN`,
            `dicom:KEYWORD`, an attribute's name, or a regular expression for the key.
        tables: files among which a table is found by its name alone.

    Raises:
        DataError: the same image, to the byte, in two folds.
        ValueError: an image of no group, no such table, column or strategy, or fewer groups than
            folds.
    """
    from converters.splits.grouping import group_by as group_samples
    from converters.splits.grouping import group_versions
    from converters.splits.split import check_leakage, make_split

    if group_by:
        samples = group_samples(samples, group_by, [Path(table) for table in tables])
    samples = group_versions(samples)
    made = make_split(samples, folds, seed, strategy, labels)
    check_leakage(made, samples)
    return made


def show(sample: Sample, labels: LabelSpace | None = None) -> Picture:
    """Return a sample's image with the annotated objects on it, as a notebook shows it.

    Args:
        sample: what is shown.
        labels: the classes, whose places say their colours, as in the reports; None takes the
            shipped label space that has them, else the sorted names.
    """
    from converters.pictures import figure

    return figure.show(sample, labels)


register("Sample", lambda sample: show(sample)._repr_html_())
