"""Predictions beside a data set: opened in one way by all commands, read a few images at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.splits.grouping import known_groups, with_groups
from converters.types import LabelSpace, Sample
from fusion.sources.ensemble import Ensemble, check_splits
from fusion.sources.manifest import ImageEntry
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.progress import note
from zoo.results import chunks
from zoo.source import DataSource


def usual_labels(data: DataSource | None, name: str | None) -> LabelSpace | None:
    """Return the classes of submissions: those that are named, else the data set's, if any.

    Images without annotations have none.
    """
    if data is not None and (name or data.format != "images"):
        return data.labels(name)
    return LabelSpace.load(name) if name else None


@dataclass(frozen=True)
class DataSetTruth:
    """What a data set knows of the images that predictions speak of.

    Attributes:
        samples: key -> sample, annotated or not.
        left_out: key -> the samples that corrections exclude.
    """

    samples: Mapping[str, Sample]
    left_out: Mapping[str, Sample]

    @classmethod
    def read(
        cls,
        paths: Sequence[Path],
        data: DataSource | None,
        usual: LabelSpace | None,
        subset: str = "all",
    ) -> DataSetTruth:
        """Read a data set's samples with the classes of the first store; nothing without one.

        Args:
            paths: prediction stores and submissions.
            data: the data set.
            usual: the classes where there is no store.
            subset: of the data set.

        Raises:
            ValueError: a store or the data set cannot be read.
        """
        if data is None:
            return cls({}, {})
        path = next((path for path in paths if path.is_dir()), None)
        if path is None:
            labels = usual or data.labels()
            read = {sample.key: sample for sample in data.read(labels, subset)}
            return cls(read, data.left_out(labels, subset))
        store = PredictionStore(path)
        data, labels = data.of_groups(store.manifest.groups), store.label_space(usual)
        samples = {sample.key: sample for sample in data.read(labels, subset)}
        known = cls(samples, data.left_out(labels, subset))
        return known.joined(store, data.path)

    def joined(self, store: PredictionStore, data: Path) -> DataSetTruth:
        """Return the same by a store's keys, where these lack, or have, one folder before them.

        Such are those of a data set and of its folder of images. A line says so.

        Args:
            store: of predictions.
            data: the data set's folder, for the line.
        """
        both = {**self.left_out, **self.samples}
        folder = leading_folder(
            {key: name for key, (_, _, name) in store.manifest.images.items()},
            {key: sample.file_name for key, sample in both.items()},
        )
        if folder is None:
            return self
        ours, theirs = folder
        note(
            f"{data}: its images '{ours}NAME' are taken for those that {store.path} calls "
            f"'{theirs}NAME': all of its {len(store)} images are there, each once"
        )
        groups = known_groups(store.manifest.groups)

        def renamed(samples: Mapping[str, Sample]) -> dict[str, Sample]:
            found = (
                replace(s, key=theirs + k.removeprefix(ours))
                for k, s in samples.items()
                if k.startswith(ours)
            )
            return {sample.key: sample for sample in with_groups(list(found), groups)}

        return DataSetTruth(renamed(self.samples), renamed(self.left_out))

    @property
    def annotated(self) -> dict[str, Sample]:
        """The samples that have truth."""
        return {key: sample for key, sample in self.samples.items() if sample.instances}

    @property
    def entries(self) -> dict[str, ImageEntry]:
        """Key -> (height, width, file name): what submissions may name."""
        both = {**self.left_out, **self.samples}
        return {key: (*sample.size_hw, sample.file_name) for key, sample in both.items()}


def open_beside(
    paths: Sequence[Path], known: DataSetTruth, usual: LabelSpace, data: Path
) -> tuple[Ensemble, dict[str, Sample]]:
    """Open stores and submissions of the same images, and choose the samples with their truth.

    Args:
        paths: the sources, each of another name.
        known: of the data set.
        usual: the classes of submissions; a store names its own.
        data: the data set's folder, for messages.

    Returns:
        The sources, and the samples of their images that have truth and are not left out.

    Raises:
        ValueError: they do not fit together, no image has truth, or one is predicted in another
            frame than its truth.
    """
    has_store = any(path.is_dir() for path in paths)
    labels = None if has_store else usual
    sources = Ensemble.open(paths, known.entries, labels, usual, common=True)
    check_splits(sources)
    note_left_out(sources)
    samples = {key: s for key, s in known.annotated.items() if key in sources.images}
    if not samples:
        hint = other_folder(sources.images, known.samples)
        raise ValueError(f"{data}: expected the truth of the predicted images, found none{hint}")
    check_frames(sources.images, samples)
    return sources, samples


def note_left_out(sources: Ensemble) -> None:
    """Say which stores have images that are not read, as not all have them."""
    if left := sources.left_out:
        counts = ", ".join(f"{count} of {path}" for path, count in left.items())
        count = len(sources.images)
        what = f"the {count} images" if count > 1 else "the one image"
        note(f"only {what} that all sources have are taken; left out are {counts}")


def leading_folder(
    predicted: Mapping[str, str], known: Mapping[str, str]
) -> tuple[str, str] | None:
    """Return by which folder before them the keys of predictions and of a data set differ.

    As the same folder comes before all keys or goes from all, no two of them become one.

    Args:
        predicted: key -> file name of the images that are predicted.
        known: the same of a data set's images.

    Returns:
        What stands before the data set's keys, and what before the predictions', one of them "";
        None where some keys are the same, where no folder makes all predicted images known ones,
        of the same file names, or where several do.

    >>> leading_folder({"a": "a.png"}, {"images/a": "a.png", "b": "b.png"})
    ('images/', '')
    >>> leading_folder({"a": "a.png"}, {"train/a": "a.png", "test/a": "a.png"})
    """
    if not predicted or not predicted.keys().isdisjoint(known):
        return None
    first = min(predicted)
    folders = [(key.removesuffix(first), "") for key in known if key.endswith(f"/{first}")]
    steps = (first[: i + 1] for i, letter in enumerate(first) if letter == "/")
    folders += [("", step) for step in steps if first.removeprefix(step) in known]
    fitting = [
        (ours, theirs)
        for ours, theirs in folders
        if all(
            key.startswith(theirs) and known.get(ours + key.removeprefix(theirs)) == name
            for key, name in predicted.items()
        )
    ]
    return fitting[0] if len(fitting) == 1 else None


def other_folder(keys: Iterable[str], known: Iterable[str]) -> str:
    """Say that images are known by paths from another folder; "" where they are not.

    >>> other_folder(["a"], ["images/a"])
    ": 'a' is called 'images/a' there: predict the images of this same folder"
    """
    own = list(keys)
    ends = {key.rpartition("/")[2]: key for key in known}
    for key in own:
        other = ends.get(key.rpartition("/")[2], key)
        if other != key and (other.endswith(f"/{key}") or key.endswith(f"/{other}")):
            return f": '{key}' is called '{other}' there: predict the images of this same folder"
    return ""


def check_frames(images: Mapping[str, ImageEntry], samples: Mapping[str, Sample]) -> None:
    """Make sure that predictions lie in the frame of the samples' truth.

    Raises:
        ValueError: an image has another size here and there, such as that of a crop.
    """
    for key, (height, width, _) in images.items():
        if key in samples and tuple(samples[key].size_hw) != (height, width):
            raise ValueError(
                f"'{key}' was predicted at {(height, width)}, its truth is "
                f"{tuple(samples[key].size_hw)}; take the data set of whole images, from which "
                "crops are cut"
            )


@dataclass(frozen=True)
class ImageBatch:
    """Some images of an ensemble, unread; light, so that another process can read them.

    Attributes:
        runs: of images that follow each other in the sources, the parts of each source.
    """

    runs: tuple[tuple[Iterable[Prediction], ...], ...]

    @classmethod
    def of(cls, sources: Ensemble, keys: Sequence[str]) -> ImageBatch:
        """Choose images, in the given order; those that follow each other are read together."""
        place = {key: number for number, key in enumerate(sources.images)}
        numbers = [place[key] for key in keys]
        steps = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
        ends = zip([0, *steps], [*steps, len(numbers)], strict=True)
        return cls(
            tuple(
                sources.part(numbers[first], numbers[last - 1] + 1)
                for first, last in ends
                if first < last
            )
        )

    def __iter__(self) -> Iterator[tuple[Prediction, ...]]:
        """Yield each image's predictions, one a source; one image in memory at a time."""
        for parts in self.runs:
            yield from zip(*parts, strict=True)


def batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield keys a few at a time, as one process works on them."""
    for start in range(0, len(keys), chunks.IMAGES):
        yield keys[start : start + chunks.IMAGES]


def short_names(paths: tuple[Path, Path]) -> tuple[str, str]:
    """Return what two sources are called: folder or file, and what lies above where need be."""
    a, b = (path.resolve().with_suffix("") if path.is_file() else path.resolve() for path in paths)
    for depth in range(1, max(len(a.parts), len(b.parts)) + 1):
        names = "/".join(a.parts[-depth:]), "/".join(b.parts[-depth:])
        if names[0] != names[1]:
            return names
    return f"{a.name} (A)", f"{b.name} (B)"
