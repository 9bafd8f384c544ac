"""What all evidence together tells, as rows."""
