"""What a file or a folder of another program's predictions holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from converters.errors import did_you_mean
from converters.files.images import is_image
from converters.files.names import of_same_numbers, plain_name
from converters.formats.mask_folders.nnunet_writing import name_of_image
from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction

T = TypeVar("T")
# Of classes.
_SHOWN = 4
_FOREIGN = {
    "file": "expected a file called as an image of the data set is, found none of that name: move "
    "it elsewhere",
    "array": "expected an array called as an image of the data set is, found none of that name: "
    "save the others without it",
}


@dataclass(frozen=True)
class WrittenPredictions:
    """Predictions of another program, read when they are asked for.

    Attributes:
        form: what they are, in words.
        kind: `semantic` or `instance`.
        keys: of the images that they speak of.
        names_all: whether an image is named also where nothing was found; otherwise nobody can
            tell an image without objects from one that was not predicted.
        predict: key -> its prediction; one of an image that is not named is empty. Raises
            ValueError where the file is broken.
        classes: those that are spoken of; empty means all.
        has_scores: whether the form can say how sure an object is.
        gives_scores: whether it is said of any.
    """

    form: str
    kind: Kind
    keys: Collection[str]
    names_all: bool
    predict: Callable[[str], Prediction]
    classes: tuple[str, ...] = ()
    has_scores: bool = True
    gives_scores: bool = True


@dataclass(frozen=True)
class KnownImages:
    """The images that predictions may be of.

    Attributes:
        samples: key -> sample of the data set, annotated or not.
        labels: the classes.
        numbers: of the data set's own classes, as other programs write them -> their names.
        has_background: whether the first of these is what no object covers.
    """

    samples: Mapping[str, Sample]
    labels: LabelSpace
    numbers: Mapping[int, str]
    has_background: bool = False

    @cached_property
    def stems(self) -> Mapping[str, list[str]]:
        """What a file of an image may be called, without suffix -> keys.

        That is the image's path below the data set, any end of it, or its name. Of a data set that
        was written for nnU-Net its names go before ends of paths.
        """
        found: dict[str, list[str]] = {}
        given: dict[str, list[str]] = {}
        for key, sample in self.samples.items():
            parts = key.split("/")
            names = {"/".join(parts[start:]) for start in range(len(parts))}
            if own := name_of_image(sample.image):
                given.setdefault(own, []).append(key)
            for name in names if own else {*names, sample.image.stem}:
                found.setdefault(name, []).append(key)
        return found | given

    def take_names(
        self,
        path: Path,
        names: Iterable[str],
        note: Callable[[str], None],
        background: str | None = None,
    ) -> list[str | None]:
        """Return the classes that a file's names mean; None for those that are not asked for.

        Args:
            path: of the file.
            names: that it states.
            note: told which are left out.
            background: the name of what is no class.

        Raises:
            ValueError: none is asked for.
        """
        stated = list(names)
        found = [self.canonical(name) for name in stated]
        if not any(found):
            raise self.none_of(path, stated)
        pairs = zip(stated, found, strict=True)
        lost = [name for name, label in pairs if name.casefold() != background and not label]
        self.say_left_out(path, lost, set(filter(None, found)), note)
        return found

    def none_of(self, path: Path, names: Iterable[str]) -> ValueError:
        """Return what is wrong with a file whose names are those of no class."""
        named = ", ".join(name + self._meant(name, ()) for name in names)
        return ValueError(f"{path}: expected classes of {self.labels.listed()}, found {named:.200}")

    def say_left_out(
        self,
        path: Path,
        names: Iterable[str],
        found: Collection[str],
        note: Callable[[str], None],
    ) -> None:
        """Say which classes of predictions are not asked for, and which nobody knows.

        Args:
            path: of the file that names them.
            names: that are of no class.
            found: the classes that it has names of.
            note: told; without names nothing is.
        """
        own = {*map(plain_name, self.numbers.values()), *map(plain_name, self.labels.ignored)}
        left: tuple[list[str], list[str]] = [], []
        for name in names:
            is_known = plain_name(name) in own
            left[is_known].append(name if is_known else name + self._meant(name, found))
        unknown, known = (", ".join(each) for each in left)
        if known:
            note(f"{path}: left out {known:.200}, not asked for by '{self.labels.name}'")
        if unknown:
            note(f"{path}: left out {unknown:.200}, not known to '{self.labels.name}'")

    def _meant(self, name: str, found: Collection[str]) -> str:
        """Name the class that is probably meant by an unknown name, of those that are not found."""
        others = (label for label in self.labels.names if label not in found)
        return did_you_mean(name, of_same_numbers(name, others))

    def canonical(self, name: str) -> str | None:
        """Return the class that is called so, or nearly: case and separators may differ.

        None where there is none, or several are called nearly so.
        """
        return self.labels.canonical(name) or self._alike.get(plain_name(name))

    @cached_property
    def _alike(self) -> Mapping[str, str | None]:
        """Plain name -> class; None where that of several is the same."""
        names = {**self.labels.aliases, **{name: name for name in self.labels.names}}
        found: dict[str, str | None] = {}
        for name, label in names.items():
            plain = plain_name(name)
            found[plain] = label if found.get(plain, label) == label else None
        return found

    def spoken(
        self, path: Path, classes: Collection[str], note: Callable[[str], None]
    ) -> tuple[str, ...]:
        """Return the classes that predictions speak of; () for all, or none of them.

        A network that has never found a class may not know it: it has no say there, as a submission
        without its rows has none.

        Args:
            path: of the predictions.
            classes: those that occur in them, or that they name.
            note: told which are left.
        """
        # Of the background there are no objects.
        there = {*classes, self.labels.background}
        left = [name for name in self.labels.names if name not in there]
        if not left or not classes:
            return ()
        note(
            f"{path}: no object of {', '.join(left):.200} anywhere: taken as not known to who "
            "predicted, so that it has no say there"
        )
        return tuple(name for name in self.labels.names if name in there)

    def list_numbers(self, first: int = 0) -> str:
        """Return the first numbers with their classes, in words.

        Args:
            first: what is added to each number.
        """
        shown = [f"{number + first} {name}" for number, name in self.numbers.items()]
        rest = [f"... {shown[-1]}"] if len(shown) > _SHOWN else []
        return ", ".join([*shown[:_SHOWN], *rest])

    def label_of(self, number: int) -> str | None:
        """Return the class of a number of the data set's own; None where it is not asked for.

        Raises:
            ValueError: no such number.
        """
        if number not in self.numbers:
            known = f"{min(self.numbers)} to {max(self.numbers)}"
            raise ValueError(f"expected the number of a class, {known}, found {number}")
        return self.canonical(self.numbers[number])


def match_files(
    folder: Path, paths: Iterable[Path], known: KnownImages, what: Literal["file", "array"] = "file"
) -> dict[str, Path]:
    """Return key -> the file of that image's predictions, by its place or its name.

    Args:
        folder: where the files lie.
        paths: of the files.
        known: the images.
        what: a file is, for messages.

    Raises:
        ValueError: a file of no image, or of several; or two of one.
    """
    names = known.stems
    files: dict[str, Path] = {}
    for path in paths:
        try:
            keys = (one_key(names, name) for name in names_of_file(folder, path))
            key = next(filter(None, keys), None)
            if key is None:
                raise ValueError(f"{_FOREIGN[what]} if it is no prediction")
            if key in files:
                raise ValueError(
                    f"expected one {what} of '{key}', found {files[key].relative_to(folder)} too: "
                    "import each network's predictions as a store of their own"
                )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        files[key] = path
    return files


def names_of_file(folder: Path, path: Path) -> Iterator[str]:
    """Yield what the image of a file's predictions may be called, the most exact name first."""
    place = path.relative_to(folder).with_suffix("")
    yield place.as_posix()
    yield place.name
    # As NAME.png.npy has it.
    if is_image(place):
        yield place.with_suffix("").as_posix()
        yield place.stem


def join_files(files: Mapping[Path, tuple[T, Iterable[str]]]) -> dict[str, T]:
    """Return key -> the file that has this image's objects, of files that share no image.

    Args:
        files: path -> what it is, and the keys of the images that it has objects of.

    Raises:
        ValueError: two have one image.
    """
    owners: dict[str, tuple[Path, T]] = {}
    for path, (own, keys) in files.items():
        for key in keys:
            if key in owners:
                raise ValueError(
                    f"{path}: several files of one folder are those of folds, with other images "
                    f"each: expected none of '{key}', which {owners[key][0]} has: name one file, "
                    "or import each as a store"
                )
            owners[key] = path, own
    return {key: own for key, (_, own) in owners.items()}


def one_key(known: Mapping[str, list[str]], name: str) -> str | None:
    """Return the key of the image that a file belongs to; None where there is none.

    Raises:
        ValueError: several images are called so.
    """
    keys = known.get(name, [])
    if len(keys) > 1:
        raise ValueError(
            f"'{name}': expected the name of one image, found that {' and '.join(keys[:2])} end so"
        )
    return keys[0] if keys else None
