"""Synthetic hand radiographs in the competition's format, for trials and tests without its data."""

from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom

__all__ = ["PhantomConfig", "write_phantom"]
