"""LiteRT: quantized inputs and outputs, delegates, and files that are none."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from model_cases import OIDV4, bundle_or_skip
from tflite_cases import mean_tflite, packed, schema_or_skip

from edge_vision.backends import BackendRequest, Session, make_backend
from edge_vision.backends.selection.auto_select import measure_in_child
from edge_vision.backends.trial.parent import try_graph
from edge_vision.errors import BackendError, BackendUnavailable, GraphRefused

# A delegate as small as one can be: it starts, and takes nothing of the graph.
_LAZY_DELEGATE = """
#include <stdint.h>
#include <stdlib.h>
typedef struct D {
    void *data; int (*prepare)(void *, struct D *); void *rest[3]; int64_t flags; void *opaque;
} D;
static int prepare(void *context, D *self) { return 0; }
D *tflite_plugin_create_delegate(char **keys, char **values, size_t n, void (*report)(const char *)) {
    D *self = n ? NULL : calloc(1, sizeof(D));
    if (self) self->prepare = prepare;
    else report("it takes no options");
    return self;
}
void tflite_plugin_destroy_delegate(D *self) { free(self); }
"""


@pytest.fixture(autouse=True)
def installed() -> None:
    schema_or_skip()


def load(path: Path, device: str = "auto", **options: object) -> Session:
    request = BackendRequest(device, threads=1, options=options, delegate_folders=(str(Path(device).parent),))
    return make_backend("litert").load(path, request)


@pytest.mark.parametrize(("dtype", "scale", "zero"), [("uint8", 1 / 255, 0), ("int8", 0.02, -7)])
def test_quantized_inputs_and_outputs_are_seen_as_floats(tmp_path, dtype, scale, zero):
    session = load(mean_tflite(tmp_path / "q.tflite", dtype=dtype, quantization=(scale, zero)))
    assert [(t.name, t.dtype) for t in (*session.inputs, *session.outputs)] == [
        ("images", "float32"),
        ("logits", "float32"),
    ]
    image = np.random.default_rng(0).uniform(0, 1, (1, 3, 8, 8)).astype(np.float32)
    means = session.run({"images": image})["logits"]
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, image.mean(axis=(2, 3)), atol=scale)


def test_values_beyond_the_range_of_the_integers_are_clipped(tmp_path):
    session = load(mean_tflite(tmp_path / "q.tflite", dtype="uint8", quantization=(1 / 255, 0)))
    image = np.array([-5.0, 0.5, 5.0], np.float32).reshape(1, 3, 1, 1) * np.ones((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(session.run({"images": image})["logits"], [[0, 0.5, 1]], atol=1 / 255)


def test_an_input_in_the_graphs_own_integers_passes_as_it_is(tmp_path):
    session = load(mean_tflite(tmp_path / "q.tflite", dtype="uint8", quantization=(0.5, 10)))
    pixels = np.full((1, 3, 8, 8), 30, np.uint8)
    np.testing.assert_allclose(session.run({"images": pixels})["logits"], [[10, 10, 10]])
    with pytest.raises(BackendError, match="int16"):
        session.run({"images": pixels.astype(np.int16)})


def test_an_integer_graph_without_a_scale_stays_one(tmp_path):
    session = load(mean_tflite(tmp_path / "q.tflite", dtype="int32"))
    assert session.inputs[0].dtype == session.outputs[0].dtype == "int32"
    assert session.run({"images": np.full((1, 3, 8, 8), 4, np.int32)})["logits"].tolist() == [[4, 4, 4]]


def test_the_cpu_runs_on_xnnpack():
    path = bundle_or_skip(OIDV4).folder / "model.tflite"
    assert make_backend("litert").devices()[0] == "cpu"
    assert (actual := load(path).actual).provider == "XNNPACK" and actual.device == "cpu"


def test_a_delegate_that_is_not_there_names_the_remedy(tmp_path):
    graph = mean_tflite(tmp_path / "mean.tflite")
    with pytest.raises(BackendUnavailable, match=r"libedgetpu\.so\.1 does not start.*libedgetpu1-std"):
        load(graph, "edgetpu")
    with pytest.raises(BackendUnavailable, match=r"absent\.so, which is no file"):
        load(graph, str(tmp_path / "absent.so"))
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(BackendUnavailable, match=r"text\.so does not start"):
        load(graph, str(tmp_path / "text.so"))


def test_a_delegate_that_takes_nothing_is_not_called_the_one_that_runs(tmp_path):
    library = lazy_delegate(tmp_path)
    path = bundle_or_skip(OIDV4).folder / "model.tflite"
    with pytest.raises(BackendUnavailable, match="runs no operation of the graph"):
        load(path, str(library))


def test_options_reach_the_delegate(tmp_path):
    with pytest.raises(BackendUnavailable, match="it takes no options"):
        load(mean_tflite(tmp_path / "m.tflite"), str(lazy_delegate(tmp_path)), delegate_options={"a": "b"})


def test_a_delegate_outside_the_allowed_folders_is_not_loaded(tmp_path):
    graph, (allowed, outside) = mean_tflite(tmp_path / "m.tflite"), (tmp_path / "allowed", tmp_path / "other")
    allowed.mkdir(), outside.mkdir()
    library = lazy_delegate(outside)
    (allowed / "link.so").symlink_to(library)
    (allowed / "folder.so").mkdir()
    (tmp_path / "allowed_not").symlink_to(outside)
    refusals = {
        str(library): "in one of delegate_folders",
        f"{allowed}/link.so": "in one of delegate_folders",
        f"{allowed}/../other/lazy.so": "in one of delegate_folders",
        f"{tmp_path}/allowed_not/lazy.so": "in one of delegate_folders",
        f"{allowed}/folder.so": "is no file",
        "lazy.so": "absolute path",
        "../other/lazy.so": "absolute path",
    }
    for device, reason in refusals.items():
        with pytest.raises(BackendUnavailable, match=reason):
            make_backend("litert").load(graph, BackendRequest(device, delegate_folders=(str(allowed),)))
    with pytest.raises(BackendUnavailable, match=r"delegate_folders \(none\)"):
        make_backend("litert").load(graph, BackendRequest(str(library), delegate_folders=()))
    with pytest.raises(BackendUnavailable, match="in one of delegate_folders"):
        make_backend("litert").load(graph, BackendRequest(str(library)))


def test_child_processes_keep_the_allowed_folders(tmp_path):
    """The trial and the measuring process load the delegate before the node does."""
    library = lazy_delegate(tmp_path)
    bundle = bundle_or_skip(OIDV4)
    refused = BackendRequest(str(library), delegate_folders=("/usr/lib",))
    allowed = BackendRequest(str(library), delegate_folders=(str(tmp_path),))
    for request, reason in ((refused, "in one of delegate_folders"), (allowed, "runs no operation")):
        with pytest.raises(BackendUnavailable, match=reason):
            try_graph(make_backend("litert"), bundle.folder / "model.tflite", request)
        row = measure_in_child(bundle, ["litert"], request).rows[0]
        assert reason in row.failure


def test_a_graph_that_kills_litert_is_refused(tmp_path):
    """Its input is the constant with the axes of the mean, so that an image gives axes out of range."""
    schema, graph = schema_or_skip(), mean_tflite(tmp_path / "axes.tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(graph.read_bytes(), 0))
    model.subgraphs[0].inputs = np.array([1], np.int32)
    graph.write_bytes(packed(model))
    with pytest.raises(GraphRefused, match="runs on litert, got one whose trial process was killed by SIG"):
        try_graph(make_backend("litert"), graph, BackendRequest(threads=1))


def lazy_delegate(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: sudo apt install gcc")
    source, library = folder / "lazy.c", folder / "lazy.so"
    source.write_text(_LAZY_DELEGATE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_damaged_files_are_errors_whatever_byte_it_is(tmp_path):
    whole = mean_tflite(tmp_path / "whole.tflite").read_bytes()
    rng, path, refused = random.Random(0), tmp_path / "damaged.tflite", 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            load(path).close()
        except BackendError as error:
            refused += "damaged.tflite" in str(error)
    # A flipped bit in a name or in padding harms nothing; most others do.
    assert refused > 50
    for size in range(0, len(whole), 16):
        path.write_bytes(whole[:size])
        with pytest.raises(BackendError, match=r"damaged\.tflite(.|\n)*fetch the bundle again"):
            load(path)
