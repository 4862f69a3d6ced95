"""The preprocess step, as it is copied into every model repository."""
