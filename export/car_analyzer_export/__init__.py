"""From trained PyTorch classifiers to a verified Triton model repository.

`car_analyzer_export.export.export` does it all; `car_analyzer_export.spec.Spec` says what. This module imports neither:
they import PyTorch, and `car-analyzer export --help` should not wait for it.
"""
