"""From rows of evidence to a database that answers: alignment, matching, breakdown, views."""
