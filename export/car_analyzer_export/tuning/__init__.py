"""`car-analyzer tune`: finds the settings with the highest throughput on this machine."""
