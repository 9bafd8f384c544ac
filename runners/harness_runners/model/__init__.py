"""Model directories: shapes, checkpoints, tokenizers; made up, converted, or as they lie."""
