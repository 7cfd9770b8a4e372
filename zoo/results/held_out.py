"""Held-out predictions and their truth, image by image and in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from converters.masks import CropMask
from converters.parallel import IN_PROCESS, Workers
from converters.types import LabelSpace, Sample
from fusion.fit.counted import Seen
from fusion.sources.ensemble import check_one_split
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.progress import Report, track
from zoo.results import chunks
from zoo.results.posture_weights import Postures
from zoo.results.scoring import check_sizes, truth_masks
from zoo.results.sources import open_stores
from zoo.source import DataSource

Result = TypeVar("Result")


@dataclass(frozen=True)
class HeldOut:
    """Stores of held-out predictions, and their truth.

    Attributes:
        stores: of the same images.
        samples: key -> sample with truth, of every image that counts, in the stores' order.
        labels: the classes.
        postures: how much each image counts, in the stores' order.
    """

    stores: Sequence[PredictionStore]
    samples: Mapping[str, Sample]
    labels: LabelSpace
    postures: Postures

    @classmethod
    def open(cls, paths: Sequence[Path], data: DataSource, bent: float | None = None) -> HeldOut:
        """Open stores and find their truth.

        Args:
            paths: of the stores.
            data: the data set.
            bent: the share of images of a bent posture among those to fuse; see
                `zoo.results.posture_weights`.

        Raises:
            ValueError: the stores differ, hold images the models learnt from, or have no truth, or
                cannot be weighed.
        """
        stores = open_stores(paths)
        _check_held_out(stores)
        labels = stores[0].label_space()
        data = data.of_groups(stores[0].manifest.groups)
        known, left_out = data.annotated(labels), data.left_out(labels)
        for store in stores:
            check_sizes(store, known)
        wanted = [key for key in stores[0].manifest.images if key not in left_out]
        if missing := [key for key in wanted if key not in known]:
            raise ValueError(f"{data.path}: expected truth of '{missing[0]}', found none")
        samples = {key: known[key] for key in wanted}
        # Before the pixels are counted: what is fitted is judged on other patients.
        if (people := len({sample.patient for sample in samples.values()})) < 2:
            raise ValueError(
                f"{data.path}: expected images of at least two patients, found {people} in "
                f"{len(samples)} images; what is fitted on one says nothing of others"
            )
        return cls(stores, samples, labels, Postures.of(samples.values(), labels, bent))

    @property
    def names(self) -> list[str]:
        """The sources' names."""
        return [store.name for store in self.stores]

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
        keys = list(self.stores[0].manifest.images)
        for start in range(0, len(keys), chunks.IMAGES):
            stop = start + chunks.IMAGES
            parts = tuple(store.part(start, stop) for store in self.stores)
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


def _check_held_out(stores: Sequence[PredictionStore]) -> None:
    for store in stores:
        manifest = store.manifest
        if manifest.subset != "val":
            raise ValueError(
                f"{store.path}: expected predictions of held-out images (--subset val), found "
                f"'{manifest.subset}': weights fitted on what a model has learnt from, or is "
                "to be tested on, do not hold"
            )
        # Out-of-fold predictions come from several runs, and are of no one fold.
        if not manifest.split or (manifest.fold is None and "run" in manifest.source):
            what = "fold" if manifest.split else "split"
            raise ValueError(
                f"{store.path}: expected held-out predictions that name their {what}, found none "
                "in manifest.json: that the model has not learnt from these images is not known; "
                "predict again by zoo predict RUN --subset val"
            )
    check_one_split(stores)
