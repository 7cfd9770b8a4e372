"""Predictions to and from what other libraries take: dense planes, supervision, FiftyOne."""
