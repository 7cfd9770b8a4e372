"""The page of a fusion."""
