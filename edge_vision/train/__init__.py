"""Compression by training: from a bundle and unlabelled clips to a more accurate or a faster bundle.

    command       the command line
    auto          quantization and the recipes, each where it may pay; auto_command
    torch_graph   an ONNX graph as a PyTorch module; trained numbers are written back by name
    torch_ops     the operators that it supports
    time_split    train and judge images: other clips, or time ranges with a gap; selection for diversity
    augmentation  changed images, and crops for classifiers
    teacher       samples and the outputs of the accurate bundle, cached in a folder
    lsq           fake quantizers in a QDQ graph, and their numbers written back
    distillation  the training loop: checkpoints, progress, the best state
    training_run  what the recipes share: request, data, PTQ, verdict, bundles with their lineage
    qat           quantization-aware training
    pruning       structured pruning in closed form; prune_run, with distillation
    cutting       a detector cut to some classes and feature maps
    family        small networks with a teacher's outputs; batch_norm, detection_loss
    student_run   specialised detectors: cut and pruned, or new
    supernet      a teacher as networks of fewer channels, blocks and pixels, or another precision
    latency_model times of whole networks on this device, and a model of them; measuring, kept results
    network_search, gates   the searches: uniform, Lagrangian and evolutionary; differentiable
    search_run    neural architecture search: searches, short tuning, re-measured rows
    layer_times   time of each node within the whole graph

torch_graph, torch_ops, lsq, distillation, gates and search_run import PyTorch; the others work without it.
Imports no ROS.
"""
