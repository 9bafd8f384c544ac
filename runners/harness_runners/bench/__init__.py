"""`harness bench`: how long communication takes when nobody is late."""
