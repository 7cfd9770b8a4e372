"""Augmentation of an image together with its mask, by albumentations' names and a few of ours."""
