"""ONNX graphs in PyTorch."""
