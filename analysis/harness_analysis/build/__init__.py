"""From rows of evidence to the database: matching calls over ranks, dividing every unit."""
