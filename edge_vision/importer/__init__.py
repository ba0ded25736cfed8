"""`edge-vision models import`: a model file in, a verified bundle out.

In the order of use:

    cli            the arguments of the command
    command        the command: the table of guesses, and the questions
    read           opens a file by its format, if it is small enough
    onnx_model     reads an ONNX file, and fixes it to one image of one size
    tflite_model   reads a TFLite file
    model          what a model file declares about itself
    probe          one run on noise: the real shapes and values of the outputs
    head_rules     recognises the head from shapes, values and names of the outputs
    preprocessing  how each family of models prepares its images
    labels         the names of the classes
    draft          all guesses with their reasons, as a manifest
    run            tries the bundle, verifies it, installs it
"""
