"""The configs and small weights that ship with the project, and how to find them by name."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent
# The label space where a user names none.
DEFAULT_LABELS = "hand_bones"


def find(kind: str, name: str) -> Path:
    """Return the file that `name` means: a path to a YAML or JSON file, or a shipped name.

    Args:
        kind: folder below `configs`, such as `smp` or `labels`.
        name: a shipped name without suffix (`demo`), or the path of a file.

    Raises:
        ValueError: neither a file nor a shipped config; the message lists what is shipped.
    """
    shipped = ROOT / kind / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    given = Path(name)
    if given.suffix in {".yaml", ".yml", ".json"} and given.is_file():
        return given
    known = ", ".join(names(kind)) or "none"
    raise ValueError(f"{kind} config '{name}': no such file, and shipped are only: {known}")


def find_weights(kind: str, name: str) -> Path:
    """Return the file that `name` means: a path to weights, or weights that ship beside a config.

    Raises:
        ValueError: neither; the message lists what is shipped.
    """
    for path in (Path(name), ROOT / kind / name):
        if path.is_file():
            return path
    known = ", ".join(sorted(p.name for p in (ROOT / kind).glob("*.safetensors"))) or "none"
    raise ValueError(
        f"init '{name}': no such file; nothing is downloaded, so put it there. Shipped are: {known}"
    )


def names(kind: str) -> Iterator[str]:
    """Yield the shipped configs' names below `kind`, sorted."""
    return iter(sorted(path.stem for path in (ROOT / kind).glob("*.yaml")))
