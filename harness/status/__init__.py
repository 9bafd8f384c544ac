"""What a run is doing now, out of the files that its ranks write; and whether it stands."""
