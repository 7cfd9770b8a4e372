"""Benchmarks, one a module; `tools/bench.py` runs them."""
