"""Networks that no library has, from their papers."""
