"""OneFormer of transformers."""
