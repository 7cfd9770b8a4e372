"""What lies in a folder of another program's predictions, each file by what it may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.files.below import files_below
from converters.files.images import is_image
from converters.formats.coco.files import head_of_results, is_annotation_file
from converters.formats.rle_table.options import OPTIONS, read_options
from converters.formats.rle_table.table import Table
from fusion.interchange.files.npz import names_in, texts_in
from fusion.interchange.files.tiff import SUFFIXES as TIFFS
from fusion.interchange.files.written import KnownImages, names_of_file

TABLES = (".csv", ".tsv")
_JSON = (".json",)
ARRAYS = (".npy", ".npz")
_MAPS, _TEXTS = (".png",), (".txt",)
_ROOT = re.compile(r"^([A-Za-z]:)?/*")
# What archives of a Mac hold beside the files.
_FOREIGN = "__MACOSX"


@dataclass(frozen=True)
class FolderContent:
    """The files of a folder and of those below it; none that are hidden.

    Attributes:
        folder: the folder.
        lists: of COCO results with outlines, and what is called as they are but for numbers.
        boxes: JSON lists of detections without outlines.
        others: further JSON files.
        documents: those of them that are COCO's, with images and categories of their own.
        tables: with columns of run-length codes.
        arrays: NPY and NPZ.
        maps: PNG.
        tiffs: TIFF, which may be images, too.
        texts: TXT.
        images: what may be an image of the data set by its suffix.
        files: all.
    """

    folder: Path
    lists: tuple[Path, ...]
    boxes: tuple[Path, ...]
    others: tuple[Path, ...]
    documents: tuple[Path, ...]
    tables: tuple[Path, ...]
    arrays: tuple[Path, ...]
    maps: tuple[Path, ...]
    tiffs: tuple[Path, ...]
    texts: tuple[Path, ...]
    images: tuple[Path, ...]
    files: tuple[Path, ...]

    @classmethod
    def look(cls, folder: Path) -> FolderContent:
        """Return what lies in a folder.

        Raises:
            ValueError: a broken `rle_table.yaml`.
        """
        below = files_below(folder, results=True, links=True)
        files = [path for path in below if _FOREIGN not in path.parts]

        def of(suffixes: Collection[str]) -> list[Path]:
            return [path for path in files if path.suffix.lower() in suffixes]

        def such(suffixes: Collection[str], fits: Callable[[Path], bool]) -> list[Path]:
            # Of the files of folds none is left out because it is broken.
            forms = {_form(folder, path) for path in of(suffixes) if fits(path)}
            return [path for path in of(suffixes) if _form(folder, path) in forms]

        heads = {path: head_of_results(path) for path in of(_JSON)}
        lists = such(_JSON, lambda path: b'"segmentation"' in heads[path])
        rest = sorted(heads.keys() - set(lists))
        documents = such(_JSON, lambda path: not heads[path] and is_annotation_file(path))
        return cls(
            folder,
            tuple(lists),
            tuple(path for path in rest if heads[path]),
            tuple(path for path in rest if not heads[path]),
            tuple(path for path in documents if path in rest),
            tuple(such(TABLES, lambda path: _is_table(path, folder))),
            tuple(of(ARRAYS)),
            tuple(of(_MAPS)),
            tuple(of(TIFFS)),
            tuple(of(_TEXTS)),
            tuple(path for path in files if is_image(path)),
            tuple(files),
        )

    @property
    def own_arrays(self) -> list[Path]:
        """The arrays without the probabilities of maps, which lie beside these, as nnU-Net's do."""
        beside = {path.with_suffix(".npz") for path in self.maps}
        return [path for path in self.arrays if path not in beside]

    def named(self, paths: Iterable[Path], known: KnownImages) -> list[Path]:
        """Return the files that are called as images of the data set are, or that hold such."""
        return [
            path
            for path in paths
            if is_called_as_image(self.folder, path, known) or names_inside(path, known)
        ]


def is_called_as_image(folder: Path, path: Path, known: KnownImages) -> bool:
    """Tell whether a file, by its place below a folder or its name, is called as an image is."""
    return any(name in known.stems for name in names_of_file(folder, path))


def names_inside(path: Path, known: KnownImages) -> tuple[str, ...]:
    """Return what a NPZ calls its images where it calls some as they are called; else nothing.

    These are the names of its arrays, or the texts beside a stack of all.
    """
    for names in (tuple(names_in(path)), *texts_in(path).values()):
        if any(is_called_as_image(path, place_inside(path, name), known) for name in names):
            return names
    return ()


def place_inside(path: Path, name: str) -> Path:
    """Return where an array would lie if its file were a folder, whatever path it is called by."""
    return path / _ROOT.sub("", name.replace("\\", "/"))


def nearest_file(folder: Path, paths: Iterable[Path], names: Sequence[str]) -> Path | None:
    """Return the file that describes predictions: beside them, or in a folder above.

    Args:
        folder: beyond which nobody looks.
        paths: of the predictions.
        names: that the file may have, the first that is there counts.

    Raises:
        ValueError: it is another one for some of them.
    """
    found: dict[Path | None, Path] = {}
    for place in sorted({path.parent for path in paths}):
        above = [place, *(up for up in place.parents if up.is_relative_to(folder))]
        beside = (up / name for up in above for name in names if (up / name).is_file())
        found.setdefault(next(beside, None), place)
    described = [path for path in found if path is not None]
    if not described:
        return None
    first, *others = sorted(described)
    if None in found:
        raise ValueError(
            f"{found[None]}: expected a {first.name} as beside other predictions, {first}, found "
            f"none: one in {folder} is that of all"
        )
    for other in others:
        if other.read_bytes().split() != first.read_bytes().split():
            raise ValueError(
                f"{other}: expected the same as in {first}: folds have the same classes"
            )
    return first


def _form(folder: Path, path: Path) -> str:
    return re.sub(r"\d+", "#", path.relative_to(folder).as_posix())


def _is_table(path: Path, folder: Path) -> bool:
    return Table(path, read_options(options_home(path, folder))).is_one


def options_home(path: Path, folder: Path) -> Path:
    """Return the folder with the `rle_table.yaml` of a table, its own where there is none."""
    options = nearest_file(folder, [path], (OPTIONS,))
    return options.parent if options else path.parent
