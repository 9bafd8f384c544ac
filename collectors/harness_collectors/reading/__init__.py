"""What readers of evidence share: files of any size and state, and rows as Arrow batches."""
