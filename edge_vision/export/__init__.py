"""A bundle's graph in another runtime's format: `edge-vision models export`.

    formats           the formats, and a copy of a bundle with one more graph
    torch_programs    the graph as a program of ExecuTorch or TorchScript
    torch_backends    the backends `executorch` and `torchscript`, which run these programs

TFLite is written by optimize/tflite, as the optimizer measures it, too. PyTorch and ExecuTorch are imported
when used. Imports no ROS.
"""
