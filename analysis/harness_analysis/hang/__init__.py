"""Does a run stand, where, and on whom: from what every rank is doing to a diagnosis."""
