"""What names mean: of kernels and operators, of marks of steps, of files with a rank in them."""
