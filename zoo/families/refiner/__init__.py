"""A second look at each object, given what other sources say of it."""
