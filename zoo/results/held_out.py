"""Held-out predictions and their truth, image by image and in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from converters.masks import CropMask
from converters.parallel import IN_PROCESS, Workers
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from fusion.fit.counted import Seen
from fusion.metrics.annotated import truth_masks
from fusion.sources.ensemble import Ensemble, Source, check_one_split
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.progress import Report, note, track
from zoo.results import chunks
from zoo.results.posture_weights import Postures
from zoo.results.sources import by_name
from zoo.results.truth import check_frames, note_left_out, other_folder
from zoo.source import DataSource

Result = TypeVar("Result")
SPLIT = "split.json"
ALL = "all"
"""In the place of names: every source."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions, and their truth.

    Attributes:
        sources: of the same images.
        samples: key -> sample with truth, of every image that counts, in the sources' order.
        labels: the classes that any of them speaks of.
        postures: how much each image counts, in the sources' order.
        by_word: names of the sources that are held out by the user's word alone.
    """

    sources: Ensemble
    samples: Mapping[str, Sample]
    labels: LabelSpace
    postures: Postures
    by_word: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        data: DataSource,
        bent: float | None = None,
        stated: Sequence[str] = (),
        labels_name: str | None = None,
    ) -> HeldOut:
        """Open prediction stores and submissions, and find their truth.

        Args:
            paths: of the sources.
            data: the data set.
            bent: the share of images of a bent posture among those to fuse; see
                `zoo.results.posture_weights`.
            stated: names of sources that are held out because the user says so, or `ALL`: no model
                has learnt from the images that it is asked about here.
            labels_name: label space of submissions; a store names its own. None takes the data
                set's.

        Raises:
            ValueError: the sources differ, may hold images the models learnt from, or have no
                truth, or cannot be weighed; or no source has a name that is stated.
        """
        opened = _open(by_name(paths), data, labels_name)
        by_word = _check_held_out(opened.sources, stated)
        note_left_out(opened)
        labels, data = opened.labels, _with_groups(data, opened)
        if opened.silent:
            note(
                f"no source says anything of {', '.join(opened.silent):.200}: scores are of the "
                f"other {len(opened.spoken)} classes"
            )
        known, left_out = data.annotated(labels), data.left_out(labels)
        check_frames(opened.images, known)
        wanted = [key for key in opened.images if key not in left_out]
        if missing := [key for key in wanted if key not in known]:
            hint = other_folder(missing, known)
            raise ValueError(f"{data.path}: expected truth of '{missing[0]}', found none{hint}")
        samples = {key: known[key] for key in wanted}
        # Before the pixels are counted: what is fitted is judged on other patients.
        if (people := len({sample.patient for sample in samples.values()})) < 2:
            raise ValueError(
                f"{data.path}: expected images of at least two patients, found {people} in "
                f"{len(samples)} images; what is fitted on one says nothing of others: "
                "predict more (zoo train --folds all, or fewer folds)"
            )
        postures = Postures.of(samples.values(), labels, bent)
        return cls(opened, samples, opened.spoken, postures, by_word)

    @property
    def names(self) -> list[str]:
        """The sources' names."""
        return [source.name for source in self.sources.sources]

    @property
    def patients(self) -> list[str]:
        """Whose images they are."""
        return [sample.patient for sample in self.samples.values()]

    def map(
        self, work: Callable[[Seen], Result], report: Report, workers: Workers = IN_PROCESS
    ) -> Iterator[Result]:
        """Yield what becomes of each image, in order; a few images in memory at a time.

        Args:
            work: can be pickled where there are several workers.
            report: for a progress bar.
            workers: do the work.
        """
        results = workers.map(partial(_work_on, work), self._chunks())
        yield from track((r for part in results for r in part), len(self.samples), report)

    def truth(self) -> Iterator[tuple[dict[str, CropMask], str]]:
        """Yield each image's true masks and patient."""
        for sample in self.samples.values():
            yield truth_masks(sample, self.labels), sample.patient

    def _chunks(self) -> Iterator[_Chunk]:
        keys = list(self.sources.images)
        for start in range(0, len(keys), chunks.IMAGES):
            stop = start + chunks.IMAGES
            parts = self.sources.part(start, stop)
            samples = {k: self.samples[k] for k in keys[start:stop] if k in self.samples}
            yield _Chunk(parts, samples, self.labels)


@dataclass(frozen=True)
class _Chunk:
    """A few images, light until they are read."""

    parts: tuple[Iterable[Prediction], ...]
    samples: Mapping[str, Sample]
    labels: LabelSpace


def _work_on(work: Callable[[Seen], Result], chunk: _Chunk) -> list[Result]:
    results = []
    for predictions in zip(*chunk.parts, strict=True):
        if sample := chunk.samples.get(predictions[0].key):
            truth = truth_masks(sample, chunk.labels)
            results.append(work((predictions, truth, sample.patient)))
    return results


def _open(paths: Sequence[Path], data: DataSource, labels_name: str | None) -> Ensemble:
    if all(path.is_dir() for path in paths):
        return Ensemble.open(paths, common=True)
    usual = data.labels(labels_name)
    if any(path.is_dir() for path in paths):
        return Ensemble.open(paths, usual=usual, common=True)
    classes = usual or data.classes
    samples = {**data.left_out(classes), **{s.key: s for s in data.read(classes, "all")}}
    images = {key: (*s.size_hw, s.file_name) for key, s in samples.items()}
    return Ensemble.open(paths, images, usual)


def _with_groups(data: DataSource, opened: Ensemble) -> DataSource:
    """Return the data set with the patients that stores know, else those of the split beside it."""
    stores = [source for source in opened.sources if isinstance(source, PredictionStore)]
    if known := next((s.manifest.groups for s in stores if s.manifest.groups), {}):
        return data.of_groups(known)
    for path in (data.path / SPLIT, Path(SPLIT)):
        groups = _groups_of(path)
        # Of nobody known an image stands for itself.
        if opened.images.keys() <= groups.keys() and any(groups[k] != k for k in opened.images):
            note(f"patients are those of {path}")
            return data.of_groups(groups)
    return data


def _groups_of(path: Path) -> Mapping[str, str]:
    """Return a split's patients; none of another file, which nobody has named."""
    try:
        return Split.load(path).groups if path.is_file() else {}
    except ValueError:
        return {}


def _check_held_out(sources: Sequence[Source], stated: Sequence[str]) -> tuple[str, ...]:
    """Make sure that sources are held out, by their own record or by the user's word.

    Returns:
        The names of those of which the word alone says so.
    """
    names = [source.name for source in sources]
    if unknown := [name for name in stated if name not in (*names, ALL)]:
        raise ValueError(
            f"--held-out: expected names of the sources ({', '.join(names)}) or {ALL}, found "
            f"'{unknown[0]}'"
        )
    doubts = {source.name: _doubt(source) for source in sources}
    asked = [s for s in sources if doubts[s.name] and not {s.name, ALL} & set(stated)]
    if asked:
        named = ",".join(source.name for source in asked)
        more = f"; nor are {len(asked) - 1} more known to be" if len(asked) > 1 else ""
        models = "its model has" if len(asked) == 1 else "their models have"
        raise ValueError(
            f"{asked[0].path}: {doubts[asked[0].name]}{more}; if you know that {models} not learnt "
            f"from these images, say --held-out {named}"
        )
    known = [source for source in sources if not doubts[source.name]]
    check_one_split([source for source in known if isinstance(source, PredictionStore)])
    return tuple(name for name in names if doubts[name])


def _doubt(source: Source) -> str:
    """Say why a source is not held out as far as its own record goes; "" if it is."""
    if not isinstance(source, PredictionStore):
        return (
            "expected predictions of held-out images, found a submission, which does not say what "
            "its model has learnt from"
        )
    manifest = source.manifest
    if manifest.subset != "val":
        return (
            "expected predictions of held-out images (--subset val), found "
            f"'{manifest.subset}': weights fitted on what a model has learnt from, or is "
            "to be tested on, do not hold"
        )
    # Out-of-fold predictions come from several runs, and are of no one fold.
    if not manifest.split or (manifest.fold is None and "run" in manifest.source):
        what = "fold" if manifest.split else "split"
        return (
            f"expected held-out predictions that name their {what}, found none "
            "in manifest.json: that the model has not learnt from these images is not known; "
            "predict again by zoo predict RUN --subset val"
        )
    return ""
