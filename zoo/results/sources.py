"""Stores and submissions of the same images, opened together with their data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.files.images import read_pixels
from converters.types import LabelSpace, Sample
from fusion.rules.base import WrappedRule
from fusion.rules.file import check_names, check_options, load_rule, read_by_word, read_labels
from fusion.rules.refine import Refined
from fusion.sources.ensemble import Ensemble, Source, check_splits
from fusion.sources.manifest import ImageEntry
from fusion.sources.store import PredictionStore, check_distinct, check_match, source_name
from fusion.types import Rule
from zoo.results.truth import other_folder, usual_labels
from zoo.source import DataSource


def open_stores(paths: Sequence[Path]) -> list[PredictionStore]:
    """Open prediction stores that speak of the same images, by name.

    Raises:
        ValueError: none given, two of the same name, or they differ; says where.
    """
    if not paths:
        raise ValueError("expected at least one prediction store, found none")
    stores = [PredictionStore(path) for path in by_name(paths)]
    check_distinct([store.path for store in stores])
    check_match(stores)
    return stores


def open_fusion(
    paths: Sequence[Path],
    method: str | None,
    config: Path | None,
    data: DataSource | None,
    subset: str,
    labels_name: str | None,
) -> tuple[Rule, Ensemble, dict[str, Sample] | None]:
    """Read a rule and open what it fuses; see `open_sources`.

    Args:
        paths: prediction stores and submissions.
        method: a rule with its usual options; or give `config`.
        config: a fusion config, by file or shipped name.
        data: the images' data set.
        subset: of the data set.
        labels_name: label space of submissions.

    Raises:
        ValueError: rule, sources and data set do not fit together.
    """
    rule, paths = load_rule(method, config), by_name(paths)
    if config:
        check_names(rule, [source_name(path) for path in paths], config)
    fitted = read_labels(config) if config else None
    ensemble, samples = open_sources(paths, rule, data, subset, labels_name, fitted)
    if config:
        check_options(rule, len(ensemble.sources), ensemble.labels, config)
    return give_images(rule, samples), ensemble, samples


def open_sources(
    paths: Sequence[Path],
    rule: Rule,
    data: DataSource | None = None,
    subset: str = "all",
    labels_name: str | None = None,
    fitted: LabelSpace | None = None,
) -> tuple[Ensemble, dict[str, Sample] | None]:
    """Open stores and submissions in the rule's order, and the samples of their data set.

    Submissions have the classes that are named; else the data set's, those that the rule was fitted
    for, or what they tell themselves.

    Where the rule names none they come by name: the order in which they were given decides nothing.

    Raises:
        ValueError: they do not fit together, or not to the rule or the data set.
    """
    usual = usual_labels(data, labels_name) or fitted
    labels = usual if labels_name else None
    samples, images = None, None
    paths = by_name(paths)
    if data is not None:
        stores = [path for path in paths if path.is_dir()]
        known = (
            PredictionStore(stores[0]).label_space(usual) if stores else data.labels(labels_name)
        )
        samples = {sample.key: sample for sample in data.read(known, subset)}
        images = {key: (*s.size_hw, s.file_name) for key, s in samples.items()}
    ensemble = Ensemble.open(paths, images, labels, usual)
    check_splits(ensemble)
    if images is not None:
        _check_images(ensemble.images, images, data.path if data else Path())
    return (ensemble.ordered(rule.sources) if rule.sources else ensemble), samples


def warn_fitted(rule: Rule, sources: Ensemble, config: Path | None) -> str:
    """Say that scores on images which a rule was fitted on are too good; "" where it may not be.

    Args:
        rule: what fuses.
        sources: what is fused.
        config: the rule's file.
    """
    # Of a rule that a person wrote no classes are recorded.
    if config is None or not rule.sources or read_labels(config) is None:
        return ""
    by_word = read_by_word(config)
    # What is held out by a word alone does not say of which images it is.
    if not any(_may_be_held_out(source, source.name in by_word) for source in sources.sources):
        return ""
    return (
        f"{config}: on the images that it was fitted on, its scores are too good; those that "
        "zoo fit printed are of patients that it had not seen"
    )


def _may_be_held_out(source: Source, by_word: bool) -> bool:
    subset = source.manifest.subset if isinstance(source, PredictionStore) else ""
    return subset == "val" or (by_word and subset != "test")


def by_name(paths: Iterable[Path]) -> list[Path]:
    """Sort sources by the name by which rules know them.

    Raises:
        ValueError: one is not there.
    """
    found = sorted(paths, key=source_name)
    for path in found:
        if not path.exists():
            raise ValueError(f"{path}: expected a prediction store or a submission, found nothing")
    return found


def _check_images(
    images: Mapping[str, ImageEntry], known: Mapping[str, ImageEntry], data: Path
) -> None:
    for key, (height, width, _) in images.items():
        if key not in known:
            hint = other_folder([key], known)
            raise ValueError(f"{data}: expected the image '{key}' of the sources, found none{hint}")
        if known[key][:2] != (height, width):
            sizes = f"{(height, width)} in the sources, {known[key][:2]} in {data}"
            raise ValueError(f"'{key}' is {sizes}; take the data set of whole images")


@dataclass(frozen=True)
class GreyImages:
    """Reads a data set's images by their keys; can be sent to another process.

    Attributes:
        samples: key -> sample, without its annotations.
    """

    samples: Mapping[str, Sample]

    @classmethod
    def of(cls, samples: Mapping[str, Sample]) -> GreyImages:
        """Return a reader of the samples' images."""
        return cls({key: replace(s, instances=()) for key, s in samples.items()})

    def __call__(self, key: str) -> npt.NDArray[np.uint8]:
        """Return an image in grey, uint8 (H, W)."""
        return read_pixels(self.samples[key])


def give_images(rule: Rule, samples: Mapping[str, Sample] | None) -> Rule:
    """Return a rule that can read the images that it looks at; others as they are.

    Raises:
        ValueError: the rule looks at images, and there are none.
    """
    if isinstance(rule, Refined) and rule.refine.needs_image:
        if samples is None:
            raise ValueError("this rule refines by a CRF, which looks at images: expected --data")
        return replace(rule, read_grey=GreyImages.of(samples))
    if isinstance(rule, WrappedRule):
        inner = give_images(rule.rule, samples)
        return rule if inner is rule.rule else replace(rule, rule=inner)
    return rule
