"""An export as columns: its files, its tables, its texts."""
