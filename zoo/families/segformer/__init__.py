"""SegFormer of transformers."""
