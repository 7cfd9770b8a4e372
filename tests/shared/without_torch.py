"""Runs a command where torch, and what comes with it, cannot be imported."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import importlib.abc, sys
sys.path[:0] = {paths!r}
HEAVY = {{"torch", "torchvision", "timm", "lightning", "transformers", "safetensors",
    "segmentation_models_pytorch", "albumentations", "monai", "ultralytics", "onnxscript"}}
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Wall())
sys.argv[0] = "zoo"
from zoo.__main__ import run
try:
    run()
finally:
    assert not HEAVY & set(sys.modules)
"""


def without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `zoo` with arguments, and make sure that nothing of it was imported."""
    code = BLOCKED.format(paths=[p for p in sys.path if p])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
