"""What every part of the harness agrees on: words, tables, specifications, protocols, errors."""
