"""A page in the browser for data sets, predictions, fusions and what differs between them."""
