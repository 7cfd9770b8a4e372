"""Commands around annotated images: convert, split, crop, augment, enlarge."""
