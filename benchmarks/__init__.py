"""Measures car-analyzer beside what people serve such models with otherwise, and beside what the machine can do."""
