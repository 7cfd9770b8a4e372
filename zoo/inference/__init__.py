"""A network's answer to an image: whole, in windows, with test-time augmentation."""
