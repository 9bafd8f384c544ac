"""What one rank does: its process, its place among the others, its units of work, its results."""
