"""Fusion rules by name, and as YAML files for people to read and edit."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import configs
from converters.strict_yaml import read_mapping
from converters.types import LabelSpace
from fusion.checks.adjacency import Adjacency
from fusion.rules.flagged import FlaggedRule
from fusion.rules.refine import Refine, Refined
from fusion.rules.registry import FUSIONS
from fusion.rules.schema import DataclassReader, describe, plain, plain_fields, purpose
from fusion.types import Prediction, Rule

# A key beside `method` -> the type of its value, and how that and the rule become the rule. The
# resulting dataclass has the fields `rule`, and one that is named like the key.
AROUND: dict[str, tuple[type, Callable[[Rule, Any], Rule]]] = {
    "refine": (Refine, Refined),
    "adjacency": (Adjacency, FlaggedRule),
}
HELD_OUT = "held_out_by_word"
_WIDTH = 98


def load_rule(method: str | None, config: Path | None) -> Rule:
    """Return the rule that a method's name or a fusion config means.

    Raises:
        ValueError: an unknown method, both or neither given, or a bad config.
    """
    if (method is None) == (config is None):
        raise ValueError("expected either --method or --config")
    if config is not None:
        return read_rule(config)
    if method not in FUSIONS:
        raise ValueError(f"method '{method}': expected one of {', '.join(FUSIONS)}")
    return FUSIONS[method]()


def read_rule(path: Path | str) -> Rule:
    """Read a fusion config, a file or a shipped one's name: `method:` and the rule's options.

    Raises:
        ValueError: no such file, an unknown method or option, a value of another type; names the
            file and the key.
    """
    found, raw = _read(Path(path))
    raw.pop("labels", None)
    by_word = raw.pop(HELD_OUT, [])
    try:
        _READER.read(tuple[str, ...], by_word, HELD_OUT)
        return parse_rule(raw, "")
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from None


def read_labels(path: Path) -> LabelSpace | None:
    """Return the classes that a fusion config was fitted for; None where it names none.

    Raises:
        ValueError: no such file, or its key `labels` is no label space.
    """
    found, raw = _read(path)
    record = raw.get("labels")
    if record is None:
        return None
    try:
        return LabelSpace.of_record(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{found}: 'labels': expected a label space, found {error}") from None


def read_by_word(path: Path) -> tuple[str, ...]:
    """Return the sources that a fusion config was fitted on as held out by a word alone.

    Raises:
        ValueError: no such file, or its key is no list of names.
    """
    _, raw = _read(path)
    names: tuple[str, ...] = _READER.read(tuple[str, ...], raw.get(HELD_OUT, []), HELD_OUT)
    return names


def _read(path: Path) -> tuple[Path, dict[str, Any]]:
    found = path if path.is_file() else configs.find("fusion", str(path))
    return found, read_mapping(found, "a fusion config")


def check_names(rule: Rule, sources: Sequence[str], config: Path) -> None:
    """Make sure that a config's rule names the sources that are given.

    Args:
        rule: as read from the config.
        sources: the given ones' names.
        config: the file, for the message.

    Raises:
        ValueError: it names others; says which.
    """
    if rule.sources and set(rule.sources) != set(sources):
        expected = f"the fusion config expects the sources {', '.join(rule.sources)}"
        raise ValueError(
            f"{config}: 'sources': {expected}; given are {', '.join(sources)}; rename them in the "
            "file, give those that it names, or take another rule: --method mean"
        )


def check_options(rule: Rule, sources: int, labels: LabelSpace, config: Path) -> None:
    """Make sure that a config's rule can fuse so many sources, of these classes.

    Args:
        rule: as read from the config.
        sources: how many are given.
        labels: the classes.
        config: the file, for the message.

    Raises:
        ValueError: an option does not fit; names the file and the option.
    """
    nothing = Prediction("nothing", (1, 1), "semantic", {})
    try:
        rule.innermost()([nothing] * sources, labels)
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from None


def parse_rule(raw: Any, where: str) -> Rule:
    """Return the rule that a mapping with `method` and its options means.

    Args:
        raw: as YAML gives it.
        where: the place in the file, for messages.

    Raises:
        ValueError: as `read_rule`.
    """
    at = f"{where}: " if where else ""
    options = dict(raw) if isinstance(raw, dict) else {}
    method = options.pop("method", None)
    if not isinstance(method, str) or method not in FUSIONS:
        found = repr(method) if isinstance(raw, dict) else f"{raw!r:.80}"
        raise ValueError(f"{at}'method': expected one of {', '.join(FUSIONS)}, found {found}")
    around = {key: options.pop(key) for key in AROUND if key in options}
    rule: Rule = _READER.read(FUSIONS[method], options, where)
    for key, value in around.items():
        kind, wrap = AROUND[key]
        rule = wrap(rule, _READER.read(kind, value, f"{at}{key}"))
    return rule


def dump_rule(
    rule: Rule,
    notes: Mapping[str, str] | None = None,
    labels: LabelSpace | None = None,
    held_out_by_word: Sequence[str] = (),
) -> str:
    """Return the rule as YAML text that `read_rule` reads: the same rule, to the bit.

    Args:
        rule: one of `FUSIONS`, or one with something around it.
        notes: class name -> comment to put beside it.
        labels: the classes that it was fitted for; see `read_labels`.
        held_out_by_word: names of sources of which nothing but the word of who fitted the rule says
            that their models had not learnt from the images.

    Raises:
        ValueError: a rule that has no name.
    """
    record = _named(rule)
    if record is None:
        raise ValueError(f"rule: expected one of {', '.join(FUSIONS)}, found {rule!r:.80}")
    kind = FUSIONS[record["method"]]
    lines = list(_comment(purpose(kind)))
    for key, value in record.items():
        around = purpose(AROUND[key][0]) if key in AROUND else ""
        lines += _comment(describe(kind).get(key, around))
        beside = (notes or {}) if key == "classes" else {}
        lines += _lines(key, value, "", beside)
    if labels is not None:
        lines += _comment("The classes, for sources that do not name theirs.")
        plain = {"labels": labels.record()}
        text = yaml.safe_dump(plain, default_flow_style=None, sort_keys=False, allow_unicode=True)
        lines += text.splitlines()
    if held_out_by_word:
        lines += _comment(
            "Sources fitted as held out by the word of who fitted them: no record of theirs says "
            "what their models had learnt from."
        )
        lines += _lines(HELD_OUT, list(held_out_by_word), "", {})
    return "\n".join(lines) + "\n"


def _named(value: Any) -> dict[str, Any] | None:
    """A rule as plain values, its method first; None for what is no rule."""
    for key, (kind, _) in AROUND.items():
        if isinstance(getattr(value, key, None), kind):
            inner = _named(value.rule)
            return None if inner is None else {**inner, key: plain(getattr(value, key), _named)}
    method = next((name for name, kind in FUSIONS.items() if type(value) is kind), None)
    return None if method is None else {"method": method, **plain_fields(value, _named)}


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH):
        yield f"# {line}"


def _lines(key: str, value: Any, indent: str, notes: Mapping[str, str]) -> Iterator[str]:
    """A key and its value: a short value behind the key, a mapping of mappings below it."""
    head = f"{indent}{_flow(key)}:"
    short = f"{head} {_flow(value)}"
    is_tree = isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())
    if not value or not isinstance(value, dict) or not (is_tree or len(short) > _WIDTH):
        yield short + _beside(notes.get(key, "") if indent else "")
        return
    yield head + _beside(notes.get(key, "") if indent else "")
    for inner, entry in value.items():
        yield from _lines(inner, entry, indent + "  ", {} if indent else notes)


def _beside(note: str) -> str:
    return f" # {' '.join(note.split())}" if note else ""


def _flow(value: Any) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True
    )
    return text.strip().removesuffix("...").strip()


_READER = DataclassReader({Rule: parse_rule})
