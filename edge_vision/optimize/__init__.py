"""The optimizer: a model and clips in, a measured table and the best bundle for this device out.

    settings      what was asked for
    clips         pictures out of the clips: to calibrate and search on, and, from other clips, to judge on
    source        the model that was given, as a bundle; the same at other input sizes
    candidate     one cell of the table: backend, precision, input size, threads
    prepare       what comes first: the bundle and the pictures
    runtimes      which backends are measured
    study         the order of the work; each step is a job that was done before or is done now
    jobs          the seam: a job is told in JSON and answered in JSON, here by a process of its own
    job           that process
    graphs        where each graph lies, and the job that makes it
    graph         job: makes the graph of a precision and size     graph_edit, quantize, recipes
    fit           weights of int8 that fit the pictures            layer_inputs
    sensitivity   job: which layers must stay in fp32
    measure       job: times a candidate in turns with its parent  worker, agreement, truth
    built         job: builds an engine for hardware that is not here
    choose        front, choice under the budgets, why each other candidate lost
    report        report.json; page, plot and pictures make report.html of it
    output        the bundle, its ladder of faster variants, and the parameter file

Imports no ROS. Training-based methods would be further kinds of jobs that make graphs.
"""
