"""`python -m edge_vision models import`: a model file in, a verified bundle out.

In the order in which they are used:

    cli           the arguments of the command
    command       all of it, with the table and the questions
    read          opens a file by what it is, once it is small enough
    onnx_model    reads an ONNX file, and fixes it to one picture of one size
    tflite_model  reads a TFLite file
    model         what a model file says of itself
    probe         one run on noise: the shapes and the numbers that the outputs really have
    outputs       from shapes, numbers and names of the outputs to a head
    pictures      how pictures are prepared for each family of models
    labels        the names of the classes
    draft         all guesses together, with their reasons, as a manifest
    run           tries it, verifies it, puts it in its place
"""
