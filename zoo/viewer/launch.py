"""`python -m zoo.viewer.launch run PAGE ...`: Streamlit, which reads the data while it starts."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

_exit_code = 1


def _read_ahead(arguments: Sequence[str]) -> None:
    from zoo.viewer.opening import open_desk

    # What is wrong is said on the page, which asks again.
    with suppress(Exception):
        open_desk(arguments)


def _end_with_the_command() -> None:
    # Its end of the pipe closes however it ends. A buffered read would hold the interpreter up.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end() -> None:
    # A thread that still reads would be stopped inside compiled code, where that can be a crash.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_exit_code)


def main() -> None:
    """Run Streamlit's command line until the command that has started it ends."""
    global _exit_code
    # The first to be registered runs last: all that the others do is done.
    atexit.register(_end)
    from streamlit.web.cli import main as streamlit

    threading.Thread(target=_end_with_the_command, name="ending", daemon=True).start()
    # Streamlit changes the list later.
    given = sys.argv[sys.argv.index("--") + 1 :]
    threading.Thread(target=_read_ahead, args=(given,), name="reading", daemon=True).start()
    try:
        streamlit(prog_name="streamlit")
    except SystemExit as end:
        _exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


if __name__ == "__main__":
    main()
