"""Names of files that look the same, whichever system wrote them."""

from __future__ import annotations

import unicodedata


def normal_name(name: str) -> str:
    """Return a name with its accents composed (Unicode's form NFC).

    macOS writes them decomposed, most other systems composed; both look alike.
    """
    return unicodedata.normalize("NFC", name)
