"""Tables of run-length codes beside a folder of images, as competitions hand them out."""
