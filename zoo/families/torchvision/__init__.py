"""Networks of torchvision that give a logit per pixel and class."""
