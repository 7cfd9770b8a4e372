"""Folds of a data set: dealt by group, stratified, checked for leakage, described."""
