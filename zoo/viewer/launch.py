"""`python -m zoo.viewer.launch run PAGE ...`: Streamlit, which reads the data while it starts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import suppress


def _read_ahead(arguments: Sequence[str]) -> None:
    from zoo.viewer.opening import open_desk

    # What is wrong is said on the page, which asks again.
    with suppress(Exception):
        open_desk(arguments)


def main() -> None:
    """Run Streamlit's command line."""
    from streamlit.web.cli import main as streamlit

    # Streamlit changes the list later.
    given = sys.argv[sys.argv.index("--") + 1 :]
    threading.Thread(target=_read_ahead, args=(given,), name="reading", daemon=True).start()
    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
