"""Mask R-CNN of torchvision."""
