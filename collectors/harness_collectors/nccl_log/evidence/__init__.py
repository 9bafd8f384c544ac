"""What is learnt from pages: processes, communicators, calls and choices."""
