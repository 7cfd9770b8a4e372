"""EoMT, the encoder-only mask transformer, of transformers."""
