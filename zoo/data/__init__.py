"""What networks learn from: images and masks, decoded once, in a repeatable order."""
