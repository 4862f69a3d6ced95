"""Calibrates the confidences of a model's heads with labelled photos, and measures how far they can be trusted."""
