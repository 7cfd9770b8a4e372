"""Fusion rules by name, and from their YAML files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fusion import FUSIONS, Hybrid, Rule
from fusion.evidence import ZONES, Reliability
from fusion.hybrid import ClassWeights

_T = TypeVar("_T")


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
    rule: Rule = FUSIONS[method]()
    return rule


def read_rule(path: Path) -> Rule:
    """Read a fusion config: `method:` and the method's options.

    Raises:
        ValueError: no such file, an unknown method or option.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a fusion config, found no such file")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    method = raw.pop("method", None) if isinstance(raw, dict) else None
    if method not in FUSIONS:
        raise ValueError(
            f"{path}: 'method': expected one of {', '.join(FUSIONS)}, found {method!r}"
        )
    if method == "hybrid":
        return _load_hybrid(path)
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    try:
        rule: Rule = FUSIONS[method](**options)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None
    return rule


def dump_rule(rule: Hybrid, notes: Mapping[str, str] | None = None) -> str:
    """Return the rule as YAML text for people to read and edit.

    Args:
        rule: the rule.
        notes: class name -> comment to put beside it.
    """
    lines = [
        "method: hybrid",
        f"sources: {_flow(rule.sources)}",
        f"recover: {_flow(rule.recover)}",
    ]
    lines.append("reliability: # of a detection, by its score" if rule.reliability else "")
    for name, r in rule.reliability.items():
        lines.append(f"  {_flow(name)}: {{scores: {_row(r.scores)}, values: {_row(r.values)}}}")
    lines.append("# bias: added to the pooled log odds. Rows: one weight a source.")
    lines.append("classes:" if rule.classes else "classes: {}")
    for label, w in rule.classes.items():
        note = (notes or {}).get(label, "")
        lines.append(f"  {_flow(label)}:" + (f" # {note}" if note else ""))
        lines.append(f"    bias: {w.bias:.4f}")
        if w.keeps:
            lines.append(f"    keeps: {_flow(w.keeps)}")
        lines.extend(f"    {zone}: {_row(w.weights[zone])}" for zone in ZONES)
    return "\n".join(line for line in lines if line) + "\n"


def _load_hybrid(path: Path) -> Hybrid:
    """Read a rule that `dump` wrote, or that a person edited.

    Raises:
        ValueError: not such a file; names the key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    allowed = {"method", "sources", "recover", "reliability", "classes"}
    if not isinstance(raw, dict) or raw.get("method") != "hybrid" or set(raw) - allowed:
        raise ValueError(f"{path}: expected 'method: hybrid' and keys {sorted(allowed)}")
    try:
        classes = {
            str(name): _class_weights(f"classes: {name}", entry)
            for name, entry in _checked(raw, "classes", dict).items()
        }
        trust = {
            str(name): _reliability(f"reliability: {name}", entry)
            for name, entry in _checked({"reliability": {}, **raw}, "reliability", dict).items()
        }
        sources = tuple(str(name) for name in _checked(raw, "sources", list))
        recover = _checked({"recover": True, **raw}, "recover", bool)
        return Hybrid(sources, classes, trust, recover)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _class_weights(where: str, entry: Any) -> ClassWeights:
    _check_keys(where, entry, {"bias", *ZONES}, {"keeps"})
    try:
        rows = {zone: tuple(float(w) for w in entry[zone]) for zone in ZONES}
        return ClassWeights(float(entry["bias"]), rows, str(entry.get("keeps", "")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected numbers, one a source: {error}") from None


def _reliability(where: str, entry: Any) -> Reliability:
    _check_keys(where, entry, {"scores", "values"}, set())
    try:
        return Reliability(*(tuple(float(v) for v in entry[key]) for key in ("scores", "values")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected rows of numbers: {error}") from None


def _check_keys(where: str, entry: Any, needed: set[str], optional: set[str]) -> None:
    if not isinstance(entry, dict) or not needed <= set(entry) <= needed | optional:
        found = sorted(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise ValueError(f"{where}: expected the keys {sorted(needed)}, found {found}")


def _checked(raw: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = raw.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"'{key}': expected a {kind.__name__}, found {value!r:.80}")
    return value


def _flow(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=10**6)
        .strip()
        .removesuffix("...")
        .strip()
    )


def _row(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:.4f}" for v in values) + "]"
