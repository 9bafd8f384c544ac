"""What ranks do: worker, engines, loading, parallel plan, prompts."""
