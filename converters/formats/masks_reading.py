"""How masks in PNG files become samples; `converters.formats.masks` says what lies where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.errors import Problems
from converters.files.images import is_image, read_size_hw
from converters.files.names import normal_name
from converters.formats.mask_layouts import LAYOUTS, MaskLayout, packed_folders
from converters.formats.mask_pixels import VOID, check_mask_size, read_mask_pixels
from converters.formats.writing import INDEX, load_index, record_fields
from converters.masks import CropMask, outline
from converters.strict_yaml import read_mapping
from converters.types import Instance, LabelSpace, Sample

_KEYS = {"layout", "folders", "void", "mean_dice_at_most"}


def mask_file(root: Path, folder: str, key: str) -> Path:
    """Return where the mask of an image lies."""
    # Keys may hold dots: the suffix is added, never replaced.
    return root / "masks" / folder / (key + ".png")


@dataclass
class MasksReader:
    """Reads the samples of one data set; goes on after a problem.

    Attributes:
        root: the data set's folder.
        layout: how masks are spread over files.
        images: key -> the images of that name.
        masks: place below `masks`, without suffix -> the mask.
        records: key -> what is known of the image.
        problems: takes down what is wrong.
        decodes: whether masks are decoded; else there are no instances, and of masks it is but
            asked whether they are there and of their images' size.
    """

    root: Path
    layout: MaskLayout
    images: Mapping[str, list[Path]]
    masks: Mapping[str, list[Path]]
    records: Mapping[str, Mapping[str, Any]]
    problems: Problems
    decodes: bool = True
    _with_void: list[str] = field(default_factory=list)
    _without_masks: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, root: Path, labels: LabelSpace, problems: Problems) -> MasksReader:
        """Find the files of a data set.

        Raises:
            ValueError: a broken `masks.yaml` or `images.json`.
        """
        layout = read_layout(root, labels)
        images, masks = _files(root / "images"), _files(root / "masks")
        index = load_index(root)
        records = {key: {"key": key} for key in images} if index is None else index
        return cls(root, layout, images, masks, records, problems)

    def samples(self, subset: str) -> list[Sample]:
        """Return the samples of a subset; of the others it is only asked whether they are whole."""
        self._report_partners()
        found: list[Sample] = []
        for key, record in self.records.items():
            if subset == "all" or (subset == "test") == key.startswith("test/"):
                found += self._sample(key, record)
        for keys, what in (
            (self._with_void, f"value {VOID} is taken for no class"),
            (self._without_masks, "no file is taken for no object"),
        ):
            if keys:
                self.problems.note(f"masks: {what}, in {len(keys)} images ({keys[0]}, ...)")
        return found

    def _report_partners(self) -> None:
        """Take down images and masks that belong to nothing."""
        keys = set(map(normal_name, self.records))
        for key in self.images.keys() - keys:
            for image in self.images[key]:
                what = f"expected an entry in {INDEX} for each image, found none: add it, or remove"
                self.problems.add(image, f"{what} the image or {INDEX}", key=key)
        for place, paths in self.masks.items():
            folder, key = self._split(place)
            for path in paths:
                if path.suffix.lower() != ".png":
                    self.problems.add(path, "expected masks as PNG, found another kind of image")
                elif folder is None:
                    known = ", ".join(self.layout.folders)
                    self.problems.add(path, f"expected it in a folder of masks.yaml ({known:.80})")
                elif key not in keys:
                    what = "expected an image of this name in images/, found none"
                    self.problems.add(path, what, key=key)

    def _split(self, place: str) -> tuple[str | None, str]:
        """The folder of the layout and the key of a mask; no folder where it lies elsewhere."""
        for folder in self.layout.folders:
            prefix = f"{normal_name(folder)}/" if folder else ""
            if place.startswith(prefix):
                return folder, place.removeprefix(prefix)
        return None, place

    def _sample(self, key: str, record: Mapping[str, Any]) -> Iterator[Sample]:
        images = self.images.get(normal_name(key), [])
        where: dict[str, str] = {"key": key}
        try:
            fields = record_fields(record)
            where["group"] = fields["group"]
            if fields["key"] != key:
                raise ValueError(f"expected this key in {INDEX}, too, found '{fields['key']:.60}'")
            if not isinstance(record.get("drawn", []), list):
                raise ValueError(f"expected 'drawn' in {INDEX} to be a list of classes")
            if len(images) != 1:
                listed = f" ({', '.join(image.name for image in images)})" if images else ""
                raise ValueError(f"expected one image of this name, found {len(images)}{listed}")
            size_hw = read_size_hw(images[0])
        except ValueError as error:
            self.problems.add(self.root / "images" / key, error, **where)
            return
        masks: dict[str, CropMask] = {}
        files = list(self._mask_files(key, record))
        if not files and "drawn" not in record:
            self._without_masks.append(key)
        for folder, path in files:
            try:
                if self.decodes:
                    masks.update(self._read_file(key, folder, path, size_hw))
                else:
                    check_mask_size(path, size_hw)
            except ValueError as error:
                self.problems.add(path, error, **where)
        names = self.layout.labels.names
        instances = tuple(Instance(n, outline(masks[n])) for n in names if n in masks)
        yield Sample(image=images[0], size_hw=size_hw, instances=instances, **fields)

    def _mask_files(self, key: str, record: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
        """Yield the files that a sample has, or should have, with their folders."""
        drawn = record.get("drawn", [])
        for folder, names in self.layout.folders.items():
            place = normal_name(f"{folder}/{key}" if folder else key)
            path = next(iter(self.masks.get(place, ())), mask_file(self.root, folder, key))
            # A class without pixels has no file of its own; one that was drawn has.
            if self.layout.name != "per-class" or names[0] in drawn or path.is_file():
                yield folder, path

    def _read_file(
        self, key: str, folder: str, path: Path, size_hw: tuple[int, int]
    ) -> dict[str, CropMask]:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ValueError(f"expected a mask: {error.strerror}") from None
        pixels = read_mask_pixels(content, size_hw)
        masks = self.layout.masks(folder, pixels)
        if self.layout.voids(pixels) and (pixels.values == VOID).any():
            self._with_void.append(key)
        return masks


def _files(folder: Path) -> dict[str, list[Path]]:
    """Images below a folder by their places there, without suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(filter(is_image, folder.rglob("*"))):
        place = path.relative_to(folder).with_suffix("").as_posix()
        found.setdefault(normal_name(place), []).append(path)
    return found


def read_layout(root: Path, labels: LabelSpace) -> MaskLayout:
    """Read `masks.yaml`; without it masks are `packed`.

    Raises:
        ValueError: it names another layout, other classes, or folders elsewhere.
    """
    path = root / "masks.yaml"
    if not path.is_file():
        return MaskLayout("packed", labels, packed_folders(labels))
    record = read_mapping(path, "a layout of masks")
    name, void, folders = record.get("layout"), record.get("void"), _folders(path, record)
    if name not in LAYOUTS:
        raise ValueError(f"{path}: expected a layout of {', '.join(LAYOUTS)}, found {name!r:.80}")
    if unknown := sorted(map(str, set(record) - _KEYS)):
        raise ValueError(f"{path}: expected keys of {sorted(_KEYS)}, found '{unknown[0]}'")
    if void not in (None, VOID) or (void and name not in ("index", "groups")):
        raise ValueError(f"{path}: expected 'void: {VOID}' of an index map, found {void!r:.40}")
    if name in ("packed", "index"):
        folders = packed_folders(labels) if name == "packed" else {"": labels.names}
    elif "folders" not in record:
        what = (
            f"expected 'folders' too, as layout '{name}' has it: each folder in masks/ with a list"
        )
        raise ValueError(f"{path}: {what} of its classes, such as 'a: [{labels.names[0]:.40}]'")
    _check_folders(path, name, folders, labels)
    return MaskLayout(name, labels, folders, void)


def _folders(path: Path, record: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    folders = record.get("folders", {})
    if not isinstance(folders, dict) or not all(isinstance(n, list) for n in folders.values()):
        found = f"{folders!r:.80}"
        raise ValueError(f"{path}: expected 'folders', each with a list of classes, found {found}")
    return {str(folder): tuple(names) for folder, names in folders.items()}


def _check_folders(
    path: Path, layout: str, folders: Mapping[str, Sequence[str]], labels: LabelSpace
) -> None:
    held = [label for names in folders.values() for label in names]
    if sorted(map(str, held)) != sorted(labels.names):
        raise ValueError(f"{path}: expected every class in one folder, found {held!r:.80}")
    if any(_is_outside(folder) for folder in folders):
        raise ValueError(f"{path}: expected folders below 'masks', found others")
    if layout == "per-class" and any(len(names) > 1 for names in folders.values()):
        raise ValueError(f"{path}: expected one class a folder, found several")


def _is_outside(folder: str) -> bool:
    return Path(folder).is_absolute() or ".." in Path(folder).parts
