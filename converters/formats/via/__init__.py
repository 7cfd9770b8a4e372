"""The VGG Image Annotator's JSON."""
