"""Which images of a data set are learned from, held out, or to be answered."""
