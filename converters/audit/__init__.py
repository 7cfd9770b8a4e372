"""What is wrong with a data set's annotations: found, ranked, and with a correction proposed."""

from __future__ import annotations

from converters.audit.drafting import draft_edits
from converters.audit.findings import KINDS, Finding
from converters.audit.search import audit

__all__ = ["KINDS", "Finding", "audit", "draft_edits"]
