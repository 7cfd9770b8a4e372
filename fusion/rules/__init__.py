"""Rules that make one prediction of several, and the file that describes one."""
