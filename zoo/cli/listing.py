"""What `zoo list` lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import configs
import converters


def lines(topic: str) -> Iterable[str]:
    """Return a line for each thing of a topic, such as `losses`.

    Raises:
        KeyError: an unknown topic.
    """
    topics = {
        "configs": _configs,
        "models": _models,
        "memory": _memory,
        "families": _families,
        "losses": _losses,
        "optimizers": _optimizers,
        "schedules": _schedules,
        "transforms": _transforms,
        "formats": _formats,
        "fusions": _fusions,
        "labels": _labels,
    }
    return topics[topic]()


def _configs() -> Iterator[str]:
    for family in (*_families(), "fusion", "sweep", "ablation", "recipes"):
        yield from (f"{family} {name}" for name in configs.names(family))


def _models() -> Iterator[str]:
    from zoo.families.catalogue import describe_models

    yield f"{'family':12s} {'config':38s} {'million weights':>15s} {'input':>12s}  reported"
    for model in describe_models():
        size = " x ".join(map(str, model.size))
        count = f"{model.parameters:.1f}"
        line = f"{model.family:12s} {model.config:38s} {count:>15s} {size:>12s}  {model.reported}"
        yield line.rstrip()


def _memory() -> Iterator[str]:
    """Yield what training each shipped config needs on a GPU in float16, such as a V100."""
    from zoo.config import load_config
    from zoo.families import FAMILIES, load_family
    from zoo.families.outlines import load_outline
    from zoo.runs.memory import GB, estimate

    yield f"{'family':12s} {'config':38s} {'input':>12s} {'batch':>5s} {'about GB':>8s}"
    for family in FAMILIES:
        try:
            outline = load_outline(family)
        except ImportError:
            continue
        if outline is None:
            continue
        for name in configs.names(family):
            config: Any = load_config(load_family(family).Config, family, name)
            size = " x ".join(map(str, config.input_size))
            need = estimate(config, outline, "16-mixed").total / GB
            yield f"{family:12s} {name:38s} {size:>12s} {config.batch:5d} {need:8.1f}"


def _families() -> Iterable[str]:
    from zoo.families import FAMILIES

    return FAMILIES


def _losses() -> Iterator[str]:
    from zoo.training.losses import list_losses

    for name, options, purpose in list_losses():
        yield f"{name:14s} {purpose} {_braced(options)}".rstrip()


def _optimizers() -> Iterator[str]:
    from zoo.training.optim import list_optimizers

    for name, purpose in list_optimizers():
        yield f"{name:14s} {purpose}"


def _schedules() -> Iterator[str]:
    from zoo.training.schedules import list_schedules

    for name, options, purpose in list_schedules():
        yield f"{name:16s} {purpose} {_braced(options)}".rstrip()


def _transforms() -> Iterator[str]:
    from zoo.augmentation.steps import list_transforms

    for name, options, purpose in list_transforms():
        yield f"{name:16s} {purpose} {_braced(options)}".rstrip()


def _braced(options: object) -> str:
    return f"[{options}]" if options else ""


def _formats() -> Iterator[str]:
    yield describe_formats()


def _fusions() -> Iterable[str]:
    from fusion.rules.registry import FUSIONS

    return FUSIONS


def _labels() -> Iterator[str]:
    from converters.types import LabelSpace

    for name in configs.names("labels"):
        labels = LabelSpace.load(name)
        groups = f", groups {', '.join(labels.groups)}" if labels.groups else ""
        yield f"{name:12s} {len(labels)} classes{groups}"


def describe_formats() -> str:
    """Return the formats, a line each: name, what can be done with it, layouts, what they lose."""
    lines = []
    for name in converters.FORMATS:
        module = converters.load_format(name)
        ways = [way for way in ("read", "write") if hasattr(module, way)]
        layouts = [
            layout + (f" (loses {', '.join(sorted(lost))})" if lost else "")
            for layout, lost in module.LOSES.items()
        ]
        lines.append(f"{name:12s} {', '.join(ways):12s} {'; '.join(layouts)}".rstrip())
    return "\n".join(lines)
