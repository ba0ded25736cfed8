"""A server of the Open Inference Protocol v2 with its binary tensor extension, on ONNX Runtime.

    python test/v2_server.py BUNDLE [--precision fp32] [--threads 1] [--port 0]

Prints its port. `Server` runs it as a process, or the real Triton with the same arguments (triton_server.py).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
NAMES = {
    "tensor(float)": "FP32",
    "tensor(uint8)": "UINT8",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
}
NUMPY = {"FP32": np.float32, "UINT8": np.uint8, "INT64": np.int64, "FP16": np.float16}
HEAD = "Inference-Header-Content-Length"


class Server:
    """A server in a process of its own, on 127.0.0.1."""

    def __init__(
        self, *arguments: object, script: str = "v2_server.py", python: str = sys.executable, port: int = 0
    ) -> None:
        self._command = [python, str(HERE / script), *map(str, arguments)]
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as before."""
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        environment.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
        self.process = subprocess.Popen(
            [*self._command, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        while line and not line.startswith("PORT "):
            line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start, status {self.process.wait()}")
        self.port = int(line.removeprefix("PORT "))

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("bundle", help="folder")
    made.add_argument("--name", help="of the model; default: the bundle's")
    made.add_argument("--precision", default="fp32")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--port", type=int, default=0)
    return made


def opened(options: argparse.Namespace) -> tuple[str, Any]:
    """The model's name, and its session in ONNX Runtime. Needs neither edge_vision nor numpy 2."""
    import onnxruntime
    import yaml

    folder = Path(options.bundle)
    manifest = yaml.safe_load((folder / "bundle.yaml").read_text())
    graph = next(one for one in manifest["graphs"] if one["precision"] == options.precision)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(
        str(folder / graph["file"]), settings, providers=["CPUExecutionProvider"]
    )
    return options.name or manifest["name"], session


def described(value: Any) -> dict[str, Any]:
    shape = [side if isinstance(side, int) else -1 for side in value.shape]
    return {"name": value.name, "datatype": NAMES[value.type], "shape": shape}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    model: str
    session: Any
    token = os.environ.get("V2_SERVER_TOKEN", "")
    requests: list[str] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        model = f"/v2/models/{self.model}"
        documents = {
            "/v2": {
                "name": "v2_server",
                "version": "1.0",
                "extensions": ["binary_tensor_data", "model_configuration"],
            },
            model: {
                "name": self.model,
                "versions": ["1"],
                "platform": "onnxruntime_onnx",
                "inputs": [described(one) for one in inputs],
                "outputs": [described(one) for one in outputs],
            },
            f"{model}/config": {"name": self.model, "instance_group": [{"kind": "KIND_CPU", "count": 1}]},
        }
        documents[f"{model}/versions/1"] = documents[model]
        documents[f"{model}/versions/1/config"] = documents[f"{model}/config"]
        if self._permitted():
            document = documents.get(self.path)
            if document is None:
                self._send(400, {"error": f"Request for unknown model: '{self.path}' is not found"})
            else:
                self._send(200, document)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._permitted():
            return
        length = int(self.headers[HEAD])
        request = json.loads(data[:length])
        tensors, at = {}, length
        for one in request["inputs"]:
            size = one["parameters"]["binary_data_size"]
            dtype = NUMPY[one["datatype"]]
            tensors[one["name"]] = np.frombuffer(data[at : at + size], dtype).reshape(one["shape"])
            at += size
        names = [one["name"] for one in request["outputs"]]
        try:
            found = self.session.run(names, tensors)
        except Exception as error:
            self._send(400, {"error": str(error)})
            return
        head = json.dumps(
            {
                "model_name": self.model,
                "model_version": "1",
                "outputs": [
                    {
                        "name": name,
                        "datatype": next(key for key, value in NUMPY.items() if value == output.dtype),
                        "shape": output.shape,
                        "parameters": {"binary_data_size": output.nbytes},
                    }
                    for name, output in zip(names, found, strict=True)
                ],
            }
        ).encode()
        body = b"".join([head, *(output.tobytes() for output in found)])
        self._answer(200, body, {HEAD: str(len(head)), "Content-Type": "application/octet-stream"})

    def _permitted(self) -> bool:
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(401, {"error": "no valid token"})
            return False
        return True

    def _send(self, status: int, document: Any) -> None:
        self._answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # A client that no longer waits.
            super().handle_error(request, client_address)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    Handler.model, Handler.session = opened(options)
    server = HttpServer(("127.0.0.1", options.port), Handler)
    if certificate := os.environ.get("V2_SERVER_CERTIFICATE"):
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("PORT", server.server_address[1], flush=True)
    server.serve_forever()


def wait_for(url: str, seconds: float = 60.0) -> None:
    """Until a server answers."""
    until_s = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2.0).close()
            return
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
