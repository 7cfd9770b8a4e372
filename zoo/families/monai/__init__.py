"""Networks of MONAI."""
