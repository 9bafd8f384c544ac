"""What a run shows, in sentences, and when a difference is worth one."""
