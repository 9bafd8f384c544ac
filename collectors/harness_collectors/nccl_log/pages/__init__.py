"""From bytes to pages: what of a log's lines may say something, whoever is to learn from it."""
