"""Builds TensorRT engines from ONNX graphs. The module is an argument: `tensorrt` or `tensorrt_rtx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_vision.errors import BackendError, BackendUnavailable

_FLAG_OF = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "mixed": "INT8"}
_REPORTED = ("INTERNAL_ERROR", "ERROR")


def quiet_logger(module: Any) -> Any:
    """A logger that prints nothing: `errors_text()` returns the last errors and clears them."""

    class Logger(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity.name in _REPORTED:
                self.errors = [*self.errors[-2:], message.strip()]

        def errors_text(self) -> str:
            text, self.errors = "; ".join(self.errors) or "no reason given", []
            return text

    return Logger()


def built_precision(module: Any, precision: str) -> str:
    """The precision that a builder uses for a request, "graph" for that of the graph."""
    return precision if precision != "auto" and hasattr(module.BuilderFlag, "FP16") else "graph"


def build_engine(module: Any, graph: Path, precision: str) -> bytes:
    """The serialized engine of a graph; takes seconds to many minutes. precision: of built_precision.

    Raises BackendError for a graph that TensorRT cannot convert, BackendUnavailable for an unsupported
    precision or device.
    """
    logger = quiet_logger(module)
    try:
        builder = module.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise BackendUnavailable(
            f"{module.__name__} cannot build here: {logger.errors_text()}; it needs a GPU and its driver"
        ) from error
    network, parser = _network(module, builder, logger, graph)
    config = builder.create_builder_config()
    _set_precision(module, builder, network, config, precision)
    _set_batch(builder, network, config, graph)
    engine = builder.build_serialized_network(network, config)
    del parser  # It may own weights of the network.
    if engine is None:
        raise BackendError(f"{module.__name__} cannot build an engine of {graph}: {logger.errors_text()}")
    return bytes(engine)


def _network(module: Any, builder: Any, logger: Any, graph: Path) -> tuple[Any, Any]:
    """The graph as a network, and the parser that read it."""
    flags = module.NetworkDefinitionCreationFlag
    # Older versions need a flag for an explicit batch dimension; newer ones have no other mode.
    network = builder.create_network(
        1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    )
    parser = module.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        errors = "; ".join(_described(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(f"{module.__name__} cannot read {graph}: {errors or logger.errors_text()}")
    return network, parser


def _described(error: Any) -> str:
    """An error of the parser. Older versions do not report the node."""
    operator = getattr(error, "node_operator", str)()
    return f"{operator}: {error.desc()}" if operator else str(error.desc())


def _set_precision(module: Any, builder: Any, network: Any, config: Any, precision: str) -> None:
    """Allow the requested precision only: by default, TensorRT multiplies fp32 with 10 bits (TF32)."""
    flags = module.BuilderFlag
    if hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)
    if precision in ("graph", "fp32"):
        return
    flag = _FLAG_OF[precision]
    if not hasattr(flags, flag):
        raise BackendUnavailable(
            f"{module.__name__} {module.__version__} does not support {precision}: "
            f"use a newer version, or precision auto"
        )
    if flag == "INT8" and not _is_quantized(module, network):
        raise BackendUnavailable(
            f"{module.__name__} runs int8 only for graphs with QuantizeLinear nodes, this one has none: "
            f"use a bundle with an int8 graph, or precision fp16"
        )
    if precision == "fp16" and not getattr(builder, "platform_has_fast_fp16", True):
        raise BackendUnavailable("this GPU has no fast fp16: use precision auto")
    config.set_flag(getattr(flags, flag))


def _is_quantized(module: Any, network: Any) -> bool:
    return any(network.get_layer(i).type == module.LayerType.QUANTIZE for i in range(network.num_layers))


def _set_batch(builder: Any, network: Any, config: Any, graph: Path) -> None:
    """Set a free batch dimension to 1. Raises BackendError for other free dimensions."""
    profile = None
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise BackendError(
                f"{graph}: input '{tensor.name}' has free dimensions {list(shape)}: "
                f"export the graph with fixed dimensions"
            )
        if -1 in shape:
            profile = profile or builder.create_optimization_profile()
            fixed = (1, *shape[1:])
            profile.set_shape(tensor.name, fixed, fixed, fixed)
    if profile is not None:
        config.add_optimization_profile(profile)
