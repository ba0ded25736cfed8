"""Compression by training: from a bundle and unlabelled clips to a more accurate or a faster bundle.

    command, auto_command   the command lines; summary, what they print
    auto           quantization and the recipes, each where it may pay; bounds of its memory and time
    run            a recipe by its name; same_options, results of others are kept;
                   option_ranges, of all commands; cpu_clock, of a run over all its parts
    graph/         torch_graph: an ONNX graph as a PyTorch module, trained numbers are written back by name;
                   torch_ops: its operators; lsq: fake quantizers in a QDQ graph; batch_norm
    data/          time_split: train and judge images of other clips or time ranges, selected for diversity;
                   labels, of reviewed pictures; augmentation; teacher: samples and the outputs of the
                   accurate bundle, cached; input_digests
    networks/      pruning: structured, in closed form; cutting: a detector with some classes and maps;
                   family: small networks with a teacher's outputs; supernet: a teacher as networks of fewer
                   channels, blocks and pixels, or another precision; timing: of graphs and their layers
    recipes/       training_run: what they share, from the request to bundles with their lineage;
                   training_request; run_folder, what is continued in it; qat;
                   prune_run; student_run; distillation: the training loop; detection_loss
    search/        search_run: architecture search, from the latency model to re-measured rows;
                   latency_model; measuring, with kept results; network_search: uniform, Lagrangian and
                   evolutionary; gates: differentiable

graph, recipes and search import PyTorch; the others work without it. Imports no ROS.
"""
