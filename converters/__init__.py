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

import importlib
import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from converters.display import register
from converters.errors import DataError, MissingDependency, Problem, Problems, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

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

# A format is a module with
#   matches(root) -> bool                                  is this folder in the format?
#   label_space(root) -> LabelSpace | None                 the classes, as its files name them
#   numbered_labels(root) -> LabelSpace | None             (optional) numbers, if there are no names
#   LOSES: dict[str, frozenset[str]]                       layout -> what it cannot hold, of
#       "overlaps", "holes", "parts", "objects", "subpixels"; the first layout is the default
#   NO_CLASSES: str                                        (optional) what to say without any
#   WITHOUT_VAL: str                                       (optional) what is written where no split
#       holds images out
#   read(root, *, subset, labels, problems) -> list[Sample]   and/or; takes `images`, a folder,
#       where they may lie elsewhere
#   list_images(root, *, subset, problems) -> list[Sample]    where `read` decodes masks
#   write(samples, target) -> ConversionLoss
FORMATS: dict[str, str] = {
    "handbone": "converters.formats.handbone",
    "yolo": "converters.formats.yolo.yolo",
    "masks": "converters.formats.masks",
    "segformer": "converters.formats.hf.dataset",
    "datumaro": "converters.formats.datumaro.datumaro",
    "coco": "converters.formats.coco.coco",
    "labelme": "converters.formats.labelme",
    "voc": "converters.formats.voc",
    "rle_table": "converters.formats.rle_table.rle_table",
    "cvat": "converters.formats.cvat.cvat",
    "label_studio": "converters.formats.label_studio.label_studio",
    "via": "converters.formats.via.via",
    "ram_w600": "converters.formats.ram_w600",
    "cityscapes": "converters.formats.mask_folders.cityscapes",
    "mask_folders": "converters.formats.mask_folders.mask_folders",
    "images": "converters.formats.images",
}
# Known only where no other format is, in this order: many folders with images in them would be one.
_LAST = ("mask_folders", "images")
# What is to be unpacked first.
_ARCHIVES = frozenset({".zip", ".gz", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"})
SUBSETS = ("train", "test", "all")


def load_format(name: str) -> ModuleType:
    """Import the module of a format.

    Raises:
        ValueError: an unknown name.
    """
    if name not in FORMATS:
        raise unknown_format(name, FORMATS)
    return importlib.import_module(FORMATS[name])


def unknown_format(name: str, known: Collection[str]) -> ValueError:
    """Return what is wrong with the name of a format that is none of those that are known."""
    near = did_you_mean(name, known, cutoff=0.5)
    return ValueError(f"format '{name}'{near}: expected one of {', '.join(known)}")


def written_formats() -> list[str]:
    """Return the names of the formats that can be written."""
    return [name for name in FORMATS if hasattr(load_format(name), "write")]


def recognise(data: Path | str) -> str:
    """Return the name of the format that a folder is in, by its content.

    A folder of images without any annotation is in the format `images`, one with masks that
    nothing describes in `mask_folders`.

    Raises:
        ValueError: the folder is missing, or in no known format, or in several.
    """
    data = Path(data)
    _check_folder(data)
    found = [name for name in FORMATS if name not in _LAST and load_format(name).matches(data)]
    found = found or [name for name in _LAST if load_format(name).matches(data)][:1]
    if len(found) == 1:
        return found[0]
    what = f"several formats at once; name it (--from): {' or '.join(found)}"
    if not found:
        what = f"none that is known{_describe(data)}"
    raise ValueError(f"{data}: expected a data set in one format, found {what}")


def is_data_set(folder: Path | str) -> bool:
    """Tell whether a folder is a data set with annotations, in any format, maybe in several."""
    return any(load_format(name).matches(Path(folder)) for name in FORMATS if name != _LAST[-1])


def _describe(data: Path) -> str:
    """Say what lies in a folder that is no data set, and where one may be, or how to name it."""
    from converters.files.unknown import (
        describe_files,
        describe_foreign,
        describe_labels,
        describe_lack,
    )
    from converters.formats.coco.documents import is_results

    files, known = describe_files(data, is_results), f"; name it: {' or '.join(FORMATS)}"
    if told := describe_lack(data):
        return files + told + known
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        if is_data_set(folder):
            return f"{files}, but one in a folder below: give {folder}"
    return describe_foreign(data) or files + describe_labels(data) + known


def _check_folder(data: Path) -> None:
    if data.is_file() and data.suffix.lower() in _ARCHIVES:
        raise ValueError(
            f"{data}: expected a data set's folder, found an archive: unpack it, and give the "
            "folder"
        )
    if data.is_file():
        above = data.parent
        folder = above.parent if above.name == "annotations" else above
        raise ValueError(
            f"{data}: expected a data set's folder, found a file: give its folder, {folder}"
        )
    if not data.is_dir():
        raise ValueError(f"{data}: expected a data set's folder, found nothing there")


def label_space(data: Path | str, *, format: str | None = None) -> LabelSpace:
    """Return a data set's own classes: what it was written with, or what its files name.

    Args:
        data: its folder.
        format: the format's name; None recognises it by the folder's content.

    Raises:
        ValueError: an unknown format, or its classes have no names.
    """
    data = Path(data)
    return own_labels(data, format=format).required(data)


def own_labels(data: Path | str, *, format: str | None = None) -> OwnLabels:
    """Return a data set's own classes, to be given to `read`, which asks the files otherwise.

    Takes what `label_space` takes.

    Raises:
        ValueError: an unknown format, or the file that names the classes is broken.
    """
    data = Path(data)
    from converters.formats.label_spaces import OwnLabels

    module = load_format(format or recognise(data))
    _check_folder(data)
    return OwnLabels.of(module, data)


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
        data: its folder.
        format: the format's name; None recognises it by the folder's content.
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
    data = Path(data)
    samples, problems = _read(data, format, subset, labels, own, images)
    excluded = edits.excluded if edits else frozenset()
    if skips_broken:
        broken = problems.skip(excluded)
        samples = [sample for sample in samples if sample.key not in broken]
    problems.check(excluded)
    _tell(problems, note)
    if edits is None:
        return samples
    labels = labels or (own or own_labels(data, format=format)).required(data)
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
    data = Path(data)
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
    data = Path(data)
    _, module = _readable(data, format, subset)
    if not hasattr(module, "list_images"):
        found = read(data, format=format, subset=subset, note=note)
        return [replace(sample, instances=()) for sample in found]
    problems = Problems(data)
    listed = module.list_images(data, subset=subset, problems=problems)
    found = _sorted(cast("list[Sample]", listed), problems)
    problems.check()
    _tell(problems, note)
    return found


def _readable(data: Path, format: str | None, subset: str) -> tuple[str, ModuleType]:
    if subset not in SUBSETS:
        raise ValueError(f"subset '{subset}': expected one of {', '.join(SUBSETS)}")
    name = format or recognise(data)
    module = load_format(name)
    _check_folder(data)
    return name, module


def _read(
    data: Path,
    format: str | None,
    subset: str,
    labels: LabelSpace | None,
    own: OwnLabels | None,
    images: Path | None,
) -> tuple[list[Sample], Problems]:
    from converters.files.json_files import without_collection
    from converters.formats.label_spaces import OwnLabels, relabel

    name, module = _readable(data, format, subset)
    places = _places(name, module, images)
    problems = Problems(data)
    own = own or OwnLabels.of(module, data)
    wanted = labels or own.fullest
    # Files that name no classes are read as if theirs were those that are wanted, by number.
    named = own.named or wanted or own.required(data)
    read_them = partial(module.read, data, subset=subset, labels=named, problems=problems)
    with without_collection():
        found = cast("list[Sample]", read_them(**places))
    if wanted is not None:
        # Some of its own classes are called as all of them.
        is_part = own.fullest is not None and wanted.name == own.fullest.name
        found = relabel(found, named, wanted, problems, is_part)
    return _sorted(found, problems), problems


def _sorted(found: Sequence[Sample], problems: Problems) -> list[Sample]:
    from converters.files.images import with_spacing

    samples: dict[str, Sample] = {}
    for sample in found:
        if (other := samples.setdefault(sample.key, sample)) is not sample:
            what = f"expected one image of this key, found {other.image} and {sample.image}"
            problems.add(sample.key, what, key=sample.key, group=sample.group)
    return [with_spacing(samples[key]) for key in sorted(samples)]


def _places(name: str, module: ModuleType, images: Path | None) -> dict[str, Path]:
    if images is None:
        return {}
    if "images" not in inspect.signature(module.read).parameters:
        raise ValueError(f"--images: format '{name}': expected one whose images may lie elsewhere")
    if not images.is_dir():
        raise ValueError(f"--images: expected a folder, found none: {images}")
    return {"images": images}


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
    from converters.formats.writing import WriteTarget, data_set_folder, test_keys

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
            is_split=split is not None,
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
