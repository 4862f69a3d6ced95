"""Puts another version into a running Triton, so that every answer comes whole from the old one or the new one.

Needs neither PyTorch nor ONNX Runtime: going back must work where nothing is exported.
"""
