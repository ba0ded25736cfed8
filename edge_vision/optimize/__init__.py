"""The optimizer: from a model and clips to a table of measurements and the best bundle for this device.

    command         the command line
    study           the flow: data -> baseline -> trials -> Pareto front -> report -> output
    settings        the request
    source          the model as a bundle
    data/           images, labels and stored outputs of the study
    candidate       a combination of backend, precision, input size and thread count
    candidates/     which are measured, in which order, and which one is chosen
    agreement       of a candidate's outputs with those of fp32
    runtimes        the backends of a study; processor: this one
    trials/         the measurements, each in a process of its own
    device_studies  the same study on several devices, with their tables beside each other (report/devices)
    remote/         measuring on another machine over SSH
    trained         bundles of `optimize train` as candidates
    quantization/   variants and the trials that make them (variant, sensitivity); ptq and gptq for int8
    tflite/         int8 graphs as LiteRT files
    results, device the records of a report
    report/         report.json, report.html, tables for the terminal
    output          the chosen bundle, its ladder of faster variants, and the parameter file

Imports no ROS.
"""
