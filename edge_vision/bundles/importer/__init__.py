"""`python -m edge_vision.bundles import`: a model file in, a verified bundle out.

model       what a model file says of itself; nothing in it is run
onnx_model  reads an ONNX file, and fixes it to one picture of one size
tflite_model  reads a TFLite file
probe       one run on noise: the shapes and the numbers that the outputs really have
outputs     from shapes, names and numbers of the outputs to a head
pictures    how pictures are prepared for each family of models
labels      the names of the classes
draft       all guesses together, with their reasons, as a manifest
run         try it, verify it, put it in its place
cli         the command
"""
