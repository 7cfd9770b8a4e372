"""YOLO of Ultralytics. All code that is bound to AGPL-3.0 lies in this folder."""
