"""What Streamlit runs, anew for every click: `page.py PATHS --edits FILE ...`; see `server.py`."""

from __future__ import annotations

from zoo.viewer.views import run

run()
