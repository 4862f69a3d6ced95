"""Switches a running Triton to another version, so that every answer comes entirely from the old or the new one.

Needs neither PyTorch nor ONNX Runtime, so that a rollback works on machines without them.
"""
