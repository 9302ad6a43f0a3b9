"""What is made of finished runs beside tables: the benchmark of the code itself."""
