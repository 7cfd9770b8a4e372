"""Mask2Former of transformers."""
