"""`python -m zoo` is the `zoo` command."""

from zoo.entry import run

run()
