"""What an ablation changes: some keys of a config at a time."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import configs
from converters.strict_yaml import read_mapping
from zoo.config import apply_changes

BASE_NAME = "base"
_LONGEST = 48


@dataclass(frozen=True)
class Change:
    """One change of a config.

    Attributes:
        name: by which tables call it.
        keys: `key.sub` -> the value that takes the place of all that the key had, so that
            `loss: {dice: 1}` is Dice alone. The key `note` may say what the change is to show.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """A folder's name that no other change's has; the name itself where that can be one.

        >>> Change("no flips").folder, Change("clip=0").folder
        ('no-flips-52fe34', 'clip=0')
        """
        plain = re.sub(r"[^A-Za-z0-9_=.-]+", "-", self.name).strip("-.=")[:_LONGEST]
        if plain == self.name:
            return plain
        mark = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return f"{plain}-{mark}".lstrip("-")

    def apply(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config's plain values with this change.

        Raises:
            ValueError: a key lies below one that holds no keys.
        """
        changed: dict[str, Any] = copy.deepcopy(dict(raw))
        for key, value in self.keys.items():
            *above, last = key.split(".")
            place = changed
            for part in above:
                place = place.setdefault(part, {})
                if not isinstance(place, dict):
                    raise ValueError(
                        f"change '{self.name}': '{key}': expected keys below '{part}' in the "
                        f"base's config, found {place!r:.80}"
                    )
            place[last] = copy.deepcopy(value)
        return changed


BASE = Change(BASE_NAME)


def parse_change(text: str) -> Change:
    """Return the change that a text such as `augment=[]` or `loss={dice: 1}` says.

    >>> parse_change("optim.lr=1e-4")
    Change(name='optim.lr=1e-4', keys={'optim.lr': 0.0001})

    Raises:
        ValueError: no key, no `=`, or a value that is no YAML.
    """
    key = text.partition("=")[0].strip()
    value: Any = apply_changes({}, [text])
    for part in key.split("."):
        value = value[part]
    return Change(text, {key: value})


def load_changes(name: str) -> tuple[Change, ...]:
    """Read changes by shipped name or file: the name of each -> its keys and values.

    Raises:
        ValueError: no such file, no YAML, or a change that is no mapping of keys.
    """
    path = configs.find("ablation", name)
    found = []
    for title, keys in read_mapping(path, "changes of an ablation").items():
        if not isinstance(keys, dict) or not keys or any(not isinstance(key, str) for key in keys):
            raise ValueError(
                f"{path}: '{title}': expected keys of the config and their values, such as "
                f"{{augment: []}}, found {keys!r:.80}"
            )
        found.append(Change(str(title), keys))
    return tuple(found)


def check_changes(changes: Sequence[Change]) -> None:
    """Make sure that changes can be told apart.

    Raises:
        ValueError: none, two of one name, or one that is called as the base.
    """
    if not changes:
        raise ValueError(
            "expected one or more --change KEY=VALUE, each tried alone, or --changes FILE, found "
            "none; what is given without --change is of all runs, the base too"
        )
    names = [BASE_NAME]
    for change in changes:
        if change.name in names:
            raise ValueError(f"change '{change.name}': expected a name of its own, found it twice")
        names.append(change.name)
