"""What the fit keeps of images: tables of counts, the patients, and how to divide them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from converters.masks import EMPTY, CropMask
from converters.types import LabelSpace
from fusion.counts import ClassTable, tabulate
from fusion.evidence import gather
from fusion.types import Prediction

Seen = tuple[Sequence[Prediction], Mapping[str, CropMask], str]
"""The sources' predictions of one image, the true masks, and the patient."""


@dataclass(frozen=True)
class Counted:
    """Images with truth, counted: what the fit keeps of them.

    Attributes:
        tables: class name -> one table an image.
        patients: one an image.
        is_instance: bool (K,), which sources find instances.
    """

    tables: Mapping[str, Sequence[ClassTable]]
    patients: Sequence[str]
    is_instance: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def sources(self) -> int:
        """The number of sources."""
        return len(self.is_instance)

    @classmethod
    def of(
        cls, images: Iterable[Seen], labels: LabelSpace, sources: int, soft_edge: float, zones: bool
    ) -> Counted:
        """Count images, one in memory at a time.

        Raises:
            ValueError: images of one patient only, or another number of predictions than sources.
        """
        tables: dict[str, list[ClassTable]] = {label: [] for label in labels.names}
        patients, is_instance = [], np.zeros(sources, np.bool_)
        for predictions, truth, patient in images:
            if len(predictions) != sources:
                raise ValueError(f"fit: expected {sources} sources, found {len(predictions)}")
            is_instance |= np.array([p.kind == "instance" for p in predictions])
            found = {e.label: e for e in gather(predictions, labels, soft_edge)}
            for label in labels.names:
                evidence = found.get(label)
                if evidence is not None and not zones:
                    evidence = replace(evidence, zones=np.zeros_like(evidence.zones))
                tables[label].append(tabulate(evidence, truth.get(label, EMPTY), sources))
            patients.append(patient)
        if len(set(patients)) < 2:
            found_ = f"{len(set(patients))} in {len(patients)} images"
            raise ValueError(f"fit: expected images of at least two patients, found {found_}")
        return cls(tables, patients, is_instance)

    def only(self, places: Sequence[int]) -> Counted:
        """Return some of the images."""
        tables = {n: [t[i] for i in places] for n, t in self.tables.items()}
        return Counted(tables, [self.patients[i] for i in places], self.is_instance)

    def folds(self, count: int) -> list[tuple[list[int], list[int]]]:
        """Return the places of (train, test) images of a cross-validation by patient."""
        splitter = GroupKFold(min(count, len(set(self.patients))))
        split = splitter.split(np.zeros(len(self)), groups=self.patients)
        return [(train.tolist(), test.tolist()) for train, test in split]
