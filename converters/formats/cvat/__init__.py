"""CVAT's own XML (the format `cvat`)."""
