"""ONNX graphs, fp32 or with quantizers, as TFLite graphs for LiteRT.

file_writer   tensors, operators and the file
conversion    the graph, node by node
"""
