"""One change at a time: each of a list alone against the base (row T17)."""
