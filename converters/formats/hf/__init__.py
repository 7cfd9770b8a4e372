"""Hugging Face data sets (the format `segformer`): Arrow and Parquet, and their card."""
