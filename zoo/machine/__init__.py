"""The machine: its facts, devices, cluster, and what a doctor says of them."""
