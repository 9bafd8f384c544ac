"""What the page shows beyond the answer: queries and plain data, no drawing."""
