"""Inference on a server: the backend `kserve`.

    connection    one HTTP connection that is kept open, with a deadline for each request
    kserve        the Open Inference Protocol v2 (Triton, KServe): metadata, tensors, the backend
    routing       `route: auto`: server or this device, frame by frame

No pipeline needs it unless it is configured, and no other runtime needs a network. Imports no ROS.
"""
