"""The optimizer: from a model and clips to a table of measurements and the best bundle for this device.

    command           the command line
    study             the flow: dataset -> baseline -> trials -> Pareto front -> report -> output
    settings          the request
    dataset           the model as a bundle (source), images of the clips (clips), labels (ground_truth)
    candidate         a combination of backend, precision, input size and thread count
    runtimes          the backends of a study
    search            which candidates are measured, in which order
    device_studies    the same study on several devices, with their tables beside each other (report/devices)
    remote/           measuring on another machine over SSH
    trained           bundles of `optimize train` as candidates
    candidate_table   measures candidates
    trial             the interface to executors; trial_runner stores outcomes, trial_process runs one trial
    measure           trial: times a candidate alternating with its parent (worker), and their agreement
    build_only        trial: builds an engine for a device that this machine lacks
    quantization/     variants and the trials that make them (variant, sensitivity); ptq and gptq for int8
    results, device   the records of a report
    pareto            the Pareto front, the choice within the bounds, why each other candidate was rejected
    report/           report.json, report.html, tables for the terminal
    output            the chosen bundle, its ladder of faster variants, and the parameter file

Imports no ROS.
"""
