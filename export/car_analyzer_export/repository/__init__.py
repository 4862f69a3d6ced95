"""The model repository: configurations, versions, and the reference photos that are recorded with each version.

`publishing` switches a running Triton to a version. Only `reference_photos` imports PyTorch.
"""
