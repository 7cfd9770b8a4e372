"""Corrections of annotations, as a file that says them, applied to what was read."""
