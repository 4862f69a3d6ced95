"""The ONNX model of a network: `graph` writes it, `precision` converts it, `verify` compares it with PyTorch.

`answers` reads logits as the client does; `agreement` compares a network's answers in two views.
"""
