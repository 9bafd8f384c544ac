"""What observing cost: the paired measurement, and its sentences."""
