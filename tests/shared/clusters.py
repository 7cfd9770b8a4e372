"""Scripts that start clusters of Ray's, for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run_on_nodes(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that starts nodes; the test is skipped where these do not start in time."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    if "start" in done.stderr and "timed out" in done.stderr.casefold():
        pytest.skip("Ray does not start on a machine as busy as this one")
    return done
