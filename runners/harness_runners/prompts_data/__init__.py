"""Data of the shipped prompts; harness_runners.shipped reads it."""
