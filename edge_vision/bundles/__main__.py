"""`python -m edge_vision.bundles`: the same as `edge-vision models`."""

import sys

from edge_vision.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["models", *sys.argv[1:]]))
