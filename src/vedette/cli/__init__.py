"""Turns arguments into one call on `control` and prints the answer. Decides nothing."""
