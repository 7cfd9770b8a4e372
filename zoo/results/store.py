"""Fused predictions as a prediction store."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fusion.sources.ensemble import Ensemble
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Rule
from zoo.progress import Report
from zoo.results import chunks
from zoo.results.chunks import EmptyImage, Executor


def write_store(
    ensemble: Ensemble,
    rule: Rule,
    out: Path,
    executor: Executor,
    report: Report,
    is_apart: bool = False,
) -> list[EmptyImage]:
    """Fuse all images into a prediction store; one that was stopped goes on.

    Args:
        ensemble: the sources, in the order of the rule.
        rule: one image's predictions -> the fused one.
        out: the store's folder.
        executor: does the work.
        report: for a progress bar.
        is_apart: store single objects, not one mask a class.

    Returns:
        Images without any object, of those that were fused now.

    Raises:
        ValueError: a source cannot be read; nothing stays then.
    """
    total = len(ensemble.images)
    fuse = partial(chunks.fuse_and_look, rule, ensemble.labels, is_apart)
    empty: list[EmptyImage] = []
    with StoreWriter(out, _manifest(ensemble, rule, is_apart)) as writer:
        done = total - len(writer.remaining)
        wanted = range(-(-done // chunks.IMAGES), chunks.count(ensemble))
        tasks = chunks.cut(ensemble, wanted, list(ensemble.images))
        try:
            for predictions, found in executor.map(fuse, tasks, ensemble):
                for prediction in predictions:
                    writer.append(prediction)
                empty += found
                report(total - len(writer.remaining), total, "")
        except ValueError:
            # What is wrong with a source will not mend itself: no part is worth keeping.
            writer.discard()
            raise
    return empty


def _manifest(ensemble: Ensemble, rule: Rule, is_apart: bool) -> Manifest:
    classes = ensemble.classes if len(ensemble.classes) < len(ensemble.labels) else ()
    source = {
        "fusion": repr(rule),
        "sources": [[source.name, source.digest] for source in ensemble.sources],
    }
    return Manifest(
        "instance" if is_apart else "semantic",
        ensemble.labels.name,
        ensemble.labels.names,
        dict(ensemble.images),
        source,
        images_per_part=chunks.IMAGES,
        classes=classes,
        space=ensemble.labels,
        **_origin(ensemble),
    )


def _origin(ensemble: Ensemble) -> dict[str, Any]:
    """Split, fold and subset where all sources have the same; of a submission nobody knows."""
    origins = [
        (source.manifest.split, source.manifest.fold, source.manifest.subset)
        for source in ensemble.sources
        if isinstance(source, PredictionStore)
    ]
    if len(origins) < len(ensemble.sources) or len(set(origins)) > 1:
        return {}
    return dict(zip(("split", "fold", "subset"), origins[0], strict=True))
