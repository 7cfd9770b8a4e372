"""The `zoo` command and all that needs torch: families, training, inference, reports."""
