"""What verbs print, as text and as rows; `harness.cli.output` writes it to stdout."""
