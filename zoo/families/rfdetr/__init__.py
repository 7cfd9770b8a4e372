"""RF-DETR with masks, of transformers."""
