"""`zoo serve`: an exported model behind HTTP, an image in and its masks out."""
