"""One time axis for all clocks: how each is mapped to it, and what checks the mappings."""
