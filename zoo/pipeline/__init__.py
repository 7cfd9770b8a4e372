"""Recipes: the way from a data set to a submission as a graph of commands."""
