"""What lies where all machines reach it, and what a machine keeps of it."""
