"""One annotation format a module, and what a few of them share."""
