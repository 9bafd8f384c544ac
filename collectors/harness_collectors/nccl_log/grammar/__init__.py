"""What NCCL prints: its lines, of any version."""
