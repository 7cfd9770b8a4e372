"""The report of a fusion: one self-contained HTML page with scores and pictures."""

from zoo.report.entries import Case, Entry, worst_and_median
from zoo.report.page import write_report

__all__ = ["Case", "Entry", "worst_and_median", "write_report"]
