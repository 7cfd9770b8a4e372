"""Runs: trained, predicted, cross-validated, averaged, compared."""
