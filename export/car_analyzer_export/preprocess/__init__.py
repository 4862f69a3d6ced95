"""The preprocess step, which every export copies into the model repository."""
