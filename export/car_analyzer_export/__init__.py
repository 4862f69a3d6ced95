"""From trained PyTorch classifiers to a verified Triton model repository.

`car_analyzer_export.export.export` runs an export of a `car_analyzer_export.spec.Spec`. This module does not import
them, so that `car-analyzer export --help` does not wait for PyTorch.
"""
