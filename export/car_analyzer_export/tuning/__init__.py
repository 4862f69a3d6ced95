"""`car-analyzer tune`: finds out how many processes, threads and microseconds serve most photos on this machine."""
