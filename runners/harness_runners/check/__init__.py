"""Are a run's tokens and logits those of plain transformers."""
