"""Datumaro's JSON: reading, writing, and the shapes of its items."""
