"""What a report says: work, ranges, communicators, processes and devices."""
