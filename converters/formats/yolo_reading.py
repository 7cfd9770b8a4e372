"""How Ultralytics' images and label files become samples; `converters.formats.yolo` says which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from shapely.geometry import Polygon

from converters.errors import Problems
from converters.files.images import is_image, read_size_hw
from converters.files.names import normal_name
from converters.formats.writing import read_index
from converters.strict_yaml import read_mapping, read_yaml
from converters.types import Instance, LabelSpace, Sample

USUAL = ("data.yaml", "dataset.yaml")
_SUBSETS = {"train": ("train", "val"), "test": ("test",), "all": ("train", "val", "test")}
_SHOWN = 3
# Six digits of x / width miss a whole pixel by so much, at most, in images of 40,000 pixels.
_NEAR = 0.02
# Of the image's side; annotators draw a little beyond its edge.
_BEYOND = 0.1
# What lies beside images and labels, and is neither.
_NO_LABELS = frozenset({"classes", "obj", "train", "val", "test", "readme", "notes"})
_NO_IMAGES = frozenset({".txt", ".cache", ".json", ".yaml", ".yml", ".npy", ".md", ".csv", ".xml"})


def config_file(root: Path) -> Path | None:
    """Return a data set's YAML file: `data.yaml`, `dataset.yaml`, or the only one of the kind."""
    for name in USUAL:
        if (root / name).is_file():
            return root / name
    found = [path for path in sorted(root.glob("*.y*ml")) if _names_images(path)]
    return found[0] if len(found) == 1 else None


def _names_images(path: Path) -> bool:
    try:
        record = read_yaml(path, "YAML")
    except ValueError:
        return False
    return isinstance(record, dict) and {"names", "train"} <= set(record)


@dataclass(frozen=True)
class YoloConfig:
    """What a data set's YAML file says.

    Attributes:
        root: the data set's folder; nothing is looked for outside.
        path: the file.
        record: its content.

    Raises:
        ValueError: not such a file, or one of another task.
    """

    root: Path
    path: Path
    record: Mapping[str, Any]

    @classmethod
    def load(cls, root: Path) -> YoloConfig:
        """Find and read the file."""
        path = config_file(root)
        if path is None:
            raise ValueError(
                f"{root}: expected Ultralytics' {' or '.join(USUAL)}, with `names` and `train`; "
                "found none, or several YAML files of the kind"
            )
        record = read_mapping(path, "Ultralytics' data set")
        if "kpt_shape" in record:
            raise ValueError(
                f"{path}: expected labels of segments, found 'kpt_shape': these are key points "
                "(pose), which have no outlines"
            )
        return cls(root, path, record)

    @cached_property
    def names(self) -> dict[int, str]:
        """Number of a class -> its name."""
        found = self.record.get("names")
        try:
            pairs = enumerate(found) if isinstance(found, list) else dict(found or {}).items()
            names = {int(number): str(name) for number, name in pairs}
        except (TypeError, ValueError):
            names = {}
        if not names or min(names) < 0:
            raise ValueError(
                f"{self.path}: expected 'names', a list of class names or numbers with names, "
                f"found {found!r:.80}"
            )
        given = list(names.values())
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ValueError(f"{self.path}: expected each name once, found '{twice[0]}' twice")
        return names

    def places(self, subset: str) -> dict[str, list[str]]:
        """Return what the file names as images, by Ultralytics' subset.

        Raises:
            ValueError: an entry that is no path or list of paths, or none at all.
        """
        found: dict[str, list[str]] = {}
        for kind in _SUBSETS[subset]:
            entry = self.record.get(kind)
            if not entry:
                continue
            entries = entry if isinstance(entry, list) else [entry]
            if not all(isinstance(name, str) and name for name in entries):
                raise ValueError(
                    f"{self.path}: '{kind}': expected a folder, a list of images (.txt), or "
                    f"several of them, found {entry!r:.80}"
                )
            found[kind] = entries
        if not found and subset != "test":
            raise ValueError(f"{self.path}: expected 'train' with folders of images, found none")
        return found

    def find(self, name: str) -> Path | None:
        r"""Return what a path means below the data set's folder; None where nothing is there.

        What another machine calls it (`/content/set/images/train`, `C:\set\images\train`), and
        `../train/images`, as Roboflow writes it, is found by its end.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        bases = [self.root]
        if isinstance(base := self.record.get("path"), str) and base not in ("", ".", "./"):
            bases.insert(0, self.root / PurePosixPath(base.replace("\\", "/")).name)
        home = self.root.resolve()
        for start in range(len(parts)):
            for base in bases:
                place = base.joinpath(*parts[start:])
                if place.exists() and place.resolve().is_relative_to(home):
                    return place
        return None

    def images(self, subset: str, problems: Problems) -> dict[Path, str]:
        """Return the images, each with Ultralytics' subset that names it first.

        Raises:
            ValueError: a folder or list that is not there.
        """
        found: dict[Path, str] = {}
        for kind, names in self.places(subset).items():
            for name in names:
                place = self.find(name)
                if place is None or (place.is_file() and place.suffix.lower() != ".txt"):
                    raise ValueError(
                        f"{self.path}: '{kind}': expected a folder of images below "
                        f"{self.root}, or a list of them (.txt), found {name!r:.80}, which is not "
                        "there: put the images there, or correct the path"
                    )
                images = self._folder(place) if place.is_dir() else self._listed(place, problems)
                for image in images:
                    found.setdefault(image, kind)
        return found

    def _folder(self, folder: Path) -> Iterator[Path]:
        return (path for path in sorted(folder.rglob("*")) if is_image(path))

    def _listed(self, path: Path, problems: Problems) -> Iterator[Path]:
        gone = []
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected a list of images, found: {error}") from None
        for line in filter(None, map(str.strip, lines)):
            image = self.find(line)
            if image is not None and image.is_file():
                yield image
            else:
                gone.append(line)
        if gone:
            problems.add(
                path, f"expected images below the data set, {_some(gone, 'found {} names of none')}"
            )


class YoloReader:
    """Reads the samples of one data set.

    Args:
        config: what its YAML file says.
        labels: the classes, found by name or alias.
        problems: takes down what is wrong.
    """

    def __init__(self, config: YoloConfig, labels: LabelSpace, problems: Problems) -> None:
        self._config, self._labels, self._problems = config, labels, problems
        self._root = config.root
        self._index = read_index(self._root)
        self._names = {normal_name(name): name for name in self._index}
        self._classes = {n: labels.canonical(name) for n, name in config.names.items()}
        self._unknown: dict[int, int] = {}
        if not any(self._classes.values()):
            found = ", ".join(config.names.values())
            raise ValueError(
                f"{config.path}: expected classes of '{labels.name}', found {found:.200}: give "
                "--labels a YAML file with `name` and these `names`"
            )

    def samples(self, subset: str) -> list[Sample]:
        """Return the samples of a subset.

        Raises:
            ValueError: images that are not there, or label files and images that do not fit.
        """
        images = self._config.images(subset, self._problems)
        pairs = self._pair(images)
        samples = [sample for image, file in pairs.items() if (sample := self._read(image, file))]
        for number, times in sorted(self._unknown.items()):
            name = self._config.names[number]
            self._problems.add(
                self._config.path,
                f"class '{name}': expected a class of '{self._labels.name}' or an alias, found "
                f"another one with {times} objects: name it in --labels, or under `ignored`",
            )
        return samples

    # --- images and their label files

    def _pair(self, images: Mapping[Path, str]) -> dict[Path, Path | None]:
        known = {
            folder: _label_files(folder) for folder in {_label_place(i).parent for i in images}
        }
        pairs = {i: known[(p := _label_place(i)).parent].get(normal_name(p.stem)) for i in images}
        self._check_shared(pairs)
        used = set(pairs.values())
        orphans = sorted(f for own in known.values() for f in own.values() if f not in used)
        orphans = [f for f in orphans if f.stem.lower() not in _NO_LABELS]
        without = [i for i, file in pairs.items() if file is None and images[i] != "test"]
        labelled = [i for i, file in pairs.items() if file is not None]
        lists = [
            _some(map(self._short, without), "{} images without a label file"),
            _some(map(self._short, orphans), "{} label files without an image"),
        ]
        if without and not labelled:
            raise ValueError(self._nothing_found(without, known))
        if without and orphans:
            raise ValueError(
                f"{self._root}: expected images and label files of the same names, found "
                f"{lists[0]}, and {lists[1]}"
            )
        named = [image for image in without if normal_name(image.stem) in self._names]
        for image in named:
            self._problems.add(image, "expected its label file, which was written, found none")
        if without and not named:
            self._problems.note(f"{self._root}: {lists[0]}: taken as images without objects")
        if orphans:
            self._problems.note(f"{self._root}: {lists[1]}: left out")
        self._note_other_files(images)
        return pairs

    def _check_shared(self, pairs: Mapping[Path, Path | None]) -> None:
        owners: dict[Path, Path] = {}
        for image, file in pairs.items():
            if file is None:
                continue
            if (other := owners.setdefault(file, image)) is not image:
                self._problems.add(
                    image,
                    f"expected a name of its own, found {other.name} with the same label file: "
                    "rename or remove one of them",
                )

    def _nothing_found(self, without: Sequence[Path], known: Mapping[Path, Any]) -> str:
        looked = ", ".join(sorted(map(self._short, known)))
        others = [
            path
            for path in sorted(self._root.rglob("*"))
            if path.suffix.lower() == ".txt" and path.stem.lower() not in _NO_LABELS
        ]
        found = _some(map(self._short, others), "{} text files elsewhere") if others else "no text"
        return (
            f"{self._root}: expected label files (NAME.txt) in {looked:.200}, found none for any "
            f"of {len(without)} images; {found}: Ultralytics replaces the folder `images` in an "
            "image's path by `labels`; an image without objects has an empty file"
        )

    def _note_other_files(self, images: Mapping[Path, str]) -> None:
        others = [
            path
            for folder in sorted({image.parent for image in images})
            for path in sorted(folder.iterdir())
            if path.is_file()
            and not path.name.startswith(".")
            and not is_image(path)
            and path.suffix.lower() not in _NO_IMAGES
        ]
        if others:
            what = _some(map(self._short, others), "{} files beside the images")
            self._problems.note(f"{self._root}: {what}: no images that are read, left out")

    def _short(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path != self._root else path.name

    # --- samples

    def _read(self, image: Path, file: Path | None) -> Sample | None:
        place = image.relative_to(self._root)
        own = self._names.get(normal_name(image.stem), "")
        fields = self._index.get(own, {"key": place.with_suffix("").as_posix()})
        report = partial(self._problems.add, key=fields["key"], group=fields.get("group", ""))
        try:
            size_hw = read_size_hw(image)
            instances = self._instances(file, size_hw, report) if file else ()
            return Sample(image=image, size_hw=size_hw, instances=instances, **fields)
        except ValueError as error:
            report(image, error)
            return None

    def _instances(
        self, path: Path, size_hw: tuple[int, int], report: Callable[[Path, str], None]
    ) -> tuple[Instance, ...]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            report(path, f"expected a text of labels, found: {what}")
            return ()
        instances: list[Instance] = []
        for number, line in enumerate(lines, 1):
            try:
                found = self._instance(line, size_hw) if line.strip() else None
                instances += [found] if found else []
            except ValueError as error:
                report(path, f"line {number}: {error}")
        return tuple(instances)

    def _instance(self, line: str, size_hw: tuple[int, int]) -> Instance | None:
        fields = line.split()
        try:
            number, values = float(fields[0]), np.array(fields[1:], dtype=np.float64)
        except ValueError:
            raise ValueError(f"expected a class and coordinates, found '{line:.40}'") from None
        if len(values) == 4:
            raise ValueError("expected points x y of an outline, found only a box (detection)")
        if len(values) < 6 or len(values) % 2:
            raise ValueError(f"expected at least 3 points x y, found {len(values)} numbers")
        if number not in self._classes:
            raise ValueError(f"expected a class of {self._config.path.name}, found {fields[0]}")
        if not (np.abs(values - 0.5) <= 0.5 + _BEYOND).all():  # in pixels, or no numbers
            raise ValueError(f"expected coordinates from 0 to 1, found '{line:.40}'")
        label = self._classes[int(number)]
        if label is None:
            if self._config.names[int(number)] not in self._labels.ignored:
                self._unknown[int(number)] = self._unknown.get(int(number), 0) + 1
            return None
        points = _pixels(values.reshape(-1, 2) * (size_hw[1], size_hw[0]))
        return Instance(label, Polygon(points))


def _pixels(points: Any) -> Any:
    """Move points so that what is `floor(x + .02)` is the whole pixel that is nearest to them.

    Ultralytics' and supervision's writers put down `pixel / width`, we `(pixel + .5) / width`;
    Ultralytics multiplies and truncates. What was a whole number may be a little less by the digits
    that were written.
    """
    whole = np.rint(points)
    return np.where(np.abs(points - whole) <= _NEAR, whole, points) - 0.5


def _label_place(image: Path) -> Path:
    """Ultralytics' rule: the last folder `images` becomes `labels`."""
    *folders, name = image.parts
    last = len(folders) - 1 - folders[::-1].index("images") if "images" in folders else -1
    swapped = ["labels" if i == last else folder for i, folder in enumerate(folders)]
    return Path(*swapped, name).with_suffix(".txt")


def _label_files(folder: Path) -> dict[str, Path]:
    """The label files of a folder by their names, however these write their accents."""
    if not folder.is_dir():
        return {}
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".txt"]
    return {normal_name(path.stem): path for path in paths if not path.name.startswith("._")}


def _some(names: Any, what: str) -> str:
    """Say how many there are, and the first of them."""
    listed = list(names)
    shown = ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
    return f"{what.format(len(listed))} ({shown})"
