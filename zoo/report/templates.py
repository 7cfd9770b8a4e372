"""The templates of the pages, and how values are put into them."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from zoo.report.numbers import DIGITS, signed

# Rows of a table that a page keeps at most: tens of thousands would make it slow to open.
MOST_ROWS = 2000


def render(name: str, **values: Any) -> str:
    """Return a page.

    Args:
        name: of a template beside this module.
        values: everything that it names; escaped where they are text.
    """
    made = Environment(
        loader=PackageLoader("zoo.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["dice"] = lambda value: f"{value:.{DIGITS}f}"
    made.filters["signed"] = signed
    return made.get_template(name).render(values)
