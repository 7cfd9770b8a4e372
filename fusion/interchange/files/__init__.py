"""Predictions that other programs have written, one form a module; `files.py` tells them apart."""
