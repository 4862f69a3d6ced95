"""The command `car-analyzer`, and its own sub-commands `analyze` and `health`."""
