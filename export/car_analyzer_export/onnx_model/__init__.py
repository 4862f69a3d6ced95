"""The ONNX model of a network: `graph` writes it, `precision` makes it smaller, `verify` compares it with PyTorch."""
