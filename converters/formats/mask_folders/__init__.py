"""Images and masks of other programs, paired by their folders or their names."""
