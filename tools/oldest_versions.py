"""Print the oldest versions that pyproject.toml allows, as constraints for pip.

python tools/oldest_versions.py > oldest.txt
pip install --constraint oldest.txt '.[yolo,sweep]'
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def oldest(requirements: list[str], own_name: str) -> dict[str, str]:
    """Return name -> oldest version, of requirements that name one.

    >>> oldest(["numpy>=1.26", "albumentations==2.0.8", "types-PyYAML"], "us")
    {'numpy': '1.26', 'albumentations': '2.0.8'}

    Raises:
        ValueError: the same library with two different lower bounds.
    """
    found: dict[str, str] = {}
    for requirement in map(Requirement, requirements):
        if requirement.name == own_name:
            continue
        bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
        for version in bounds:
            if found.setdefault(requirement.name, version) != version:
                raise ValueError(f"{requirement.name}: {found[requirement.name]} and {version}")
    return found


def main() -> None:
    """Print a constraint a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        listed += extra
    for name, version in oldest(listed, project["name"]).items():
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
