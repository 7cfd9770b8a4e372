"""Scores and differences as the pages write them."""

from __future__ import annotations

DIGITS = 4


def rounded(value: float) -> float:
    """Return a score to the digits that the report shows."""
    return round(value, DIGITS)


def show(value: float) -> str:
    """Return a score as text, to the digits that the report shows."""
    return f"{value:.{DIGITS}f}"


def signed(value: float) -> str:
    """Return a difference with its sign; a real minus, and no sign for what rounds to 0.

    >>> signed(-0.00123), signed(0.00001)
    ('\u22120.0012', '0.0000')
    """
    text = show(abs(value))
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text
