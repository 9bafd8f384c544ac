"""`harness plan`: a specification, a model's config or a run in, tables out."""
