"""Rows of the database out of one rank's part of a report."""
