"""What is wrong with a data set's annotations: found, ranked, and with a correction proposed."""

from __future__ import annotations

from converters.audit.findings import KINDS, Finding

__all__ = ["KINDS", "Finding"]
