"""`python -m zoo.viewer.launch run PAGE ...`: Streamlit, which reads the data while it starts."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress


def _read_ahead() -> None:
    from zoo.viewer.opening import open_desk

    # What is wrong is said on the page, which asks again.
    with suppress(Exception):
        open_desk(sys.argv[sys.argv.index("--") + 1 :])


def main() -> None:
    """Run Streamlit's command line."""
    from streamlit.web.cli import main as streamlit

    threading.Thread(target=_read_ahead, name="reading", daemon=True).start()
    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
