"""What the service promises when things go wrong, tried on a real Triton: hostile input, faults, overload, time."""
