"""Ultralytics' segmentation labels."""
