"""Models that leave the house: ONNX networks with all that is needed to predict by them."""
