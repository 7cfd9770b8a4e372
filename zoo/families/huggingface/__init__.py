"""UPerNet, BEiT and DPT of transformers."""
