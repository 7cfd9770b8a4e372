"""Ultralytics is imported our way first; its own import changes threads, Pillow, and the home."""

import importlib.util

if importlib.util.find_spec("ultralytics"):
    import zoo.families.yolo.offline  # noqa: F401
