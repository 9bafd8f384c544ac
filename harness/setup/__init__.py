"""What a run starts from: its specification, collectors, interpreter, and what is noted of them."""
