"""Hostile photos, made by code: corrupt, inconsistent, far too large, far too slow, or no photos at all."""
