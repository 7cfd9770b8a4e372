"""Fusion rules by name, and from their YAML files."""

from __future__ import annotations

from pathlib import Path

import yaml

from fusion import FUSIONS, Hybrid, Rule


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
        return Hybrid.load(path)
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    try:
        rule: Rule = FUSIONS[method](**options)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None
    return rule
