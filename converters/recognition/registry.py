"""The formats that annotations are read from and written to, and which one a data set is in."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from types import ModuleType

from converters.errors import did_you_mean
from converters.files.below import files_below, is_result
from converters.files.images import is_image

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
#   annotation_files(root) -> Iterable[Path]   (optional) files that speak of the images: any may
#       name the data set; `read` and `label_space` take one, `annotations`, that alone is meant
#   image_names(file) -> Iterable[str]         (optional) what such a file calls its images
#   folder_of(file) -> Path | None             (optional) the folder that such a file speaks of
#   main_file(root) -> Path | None             (optional) the one of these files that counts where
#       the folder is named
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
    "voc": "converters.formats.mask_folders.voc",
    "rle_table": "converters.formats.rle_table.rle_table",
    "cvat": "converters.formats.cvat.cvat",
    "label_studio": "converters.formats.label_studio.label_studio",
    "supervisely": "converters.formats.supervisely.supervisely",
    "via": "converters.formats.via.via",
    "ram_w600": "converters.formats.ram_w600",
    "cityscapes": "converters.formats.mask_folders.cityscapes",
    "nnunet": "converters.formats.mask_folders.nnunet",
    "scr": "converters.formats.mask_folders.scr",
    "mask_folders": "converters.formats.mask_folders.mask_folders",
    "images": "converters.formats.images",
}
_SHOWN, _LOOKED_AT = 3, 50
# Known only where no other format is, in this order: many folders with images in them would be one.
_LAST = ("mask_folders", "images")


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


def recognise_folder(data: Path) -> str:
    """Return the name of the format that a folder is in, by its content.

    A folder of images without any annotation is in the format `images`, one with masks that
    nothing describes in `mask_folders`.

    Raises:
        ValueError: it is in no known format, or in several.
    """
    found = [name for name in FORMATS if name not in _LAST and load_format(name).matches(data)]
    found = found or [name for name in _LAST if load_format(name).matches(data)][:1]
    if found == [_LAST[-1]] and _are_of_others(_data_sets_below(data)):
        # Nobody means its images and masks one by one.
        found = []
    if len(found) == 1:
        return found[0]
    what = f"several formats at once; name it (--from): {' or '.join(found)}"
    if not found:
        what = f"none that is known{_describe(data)}"
    raise ValueError(f"{data}: expected a data set in one format, found {what}")


def is_data_set(folder: Path | str) -> bool:
    """Tell whether a folder is a data set with annotations, in any format, maybe in several."""
    return any(load_format(name).matches(Path(folder)) for name in FORMATS if name != _LAST[-1])


def _data_sets_below(data: Path) -> list[Path]:
    """Return the folders in a folder that are data sets; of very many the first are looked at."""
    folders = (path for path in sorted(data.iterdir()) if path.is_dir())
    return [path for path in islice(folders, _LOOKED_AT) if is_data_set(path)]


def _are_of_others(folders: Iterable[Path]) -> bool:
    """Tell whether any is not what we made of another data set."""
    return any(not is_result(path) for path in folders)


def _file_alone(folder: Path) -> Path | None:
    """Return the one annotation file of a data set whose images lie elsewhere, as COCO's may."""
    if any(map(is_image, files_below(folder))):
        return None
    known = [m for m in map(load_format, FORMATS) if m.matches(folder)]
    if len(known) != 1 or "images" not in inspect.signature(known[0].read).parameters:
        return None
    named = list(known[0].annotation_files(folder))
    return named[0] if len(named) == 1 else None


def _describe(data: Path) -> str:
    """Say what lies in a folder that is no data set, and where one may be, or how to name it."""
    from converters.files.unknown import (
        describe_files,
        describe_foreign,
        describe_labels,
        describe_lack,
        describe_pointers,
    )
    from converters.formats.coco.documents import is_results
    from converters.formats.mask_folders.mask_folders import describe_unreadable
    from converters.formats.mask_folders.pairing import describe_unpaired

    files, known = describe_files(data, is_results), f"; name it: {' or '.join(FORMATS)}"
    if below := _data_sets_below(data):
        if len(below) == 1 and (file := _file_alone(below[0])):
            return f"{files}, but one in a folder below: give {file}, and --images FOLDER"
        which = " or ".join(map(str, below[:_SHOWN])) + (" or ..." if below[_SHOWN:] else "")
        how_many = "one in a folder" if len(below) == 1 else f"{len(below)} in folders"
        return f"{files}, but {how_many} below: give {which}"
    if told := describe_pointers(data):
        return told
    if told := describe_unpaired(data) or describe_unreadable(data) or describe_lack(data):
        return files + told + known
    if told := describe_foreign(data):
        return told
    is_empty = not any(files_below(data, results=True, links=True))
    return ": the folder is empty" if is_empty else files + describe_labels(data) + known
