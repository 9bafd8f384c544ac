"""A job step: which ranks run where, and how srun starts and ends them."""
