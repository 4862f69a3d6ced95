"""The model repository: configurations, versions, and the photos whose answers are recorded with each version.

`publishing` loads a version into a running Triton. Only `known_photos` imports PyTorch.
"""
