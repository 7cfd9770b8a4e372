"""What is read from and written to disk, whatever the format: whole or not at all."""
