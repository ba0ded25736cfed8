"""`python -m edge_vision`: see `cli/main.py`."""

from edge_vision.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
