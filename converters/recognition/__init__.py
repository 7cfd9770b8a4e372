"""Which format a data set is in, and where it is."""
