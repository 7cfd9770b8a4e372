"""Names of files and classes as texts of the page."""

from __future__ import annotations

import re

# Markdown lets any of ASCII's punctuation stand for itself behind a backslash.
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def plain(text: str) -> str:
    r"""Return Markdown that shows a text as it is: no mark-up, no links, no HTML, no formulas.

    >>> print(plain("a_b <i> $x$"))
    a\_b \<i\> \$x\$
    """
    return _PUNCTUATION.sub(r"\\\1", text).replace("\n", "  \n")
