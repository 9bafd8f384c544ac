"""What a configuration needs before it runs: memory of every rank, and how fast a step can be.

Arithmetic on a model's config.json and a card's figures; imports neither torch nor a GPU.
    model.shape -> shards -> memory -> fit;   shape, hardware, links -> steptime
"""
