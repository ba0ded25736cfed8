"""The terminal view of running pipelines, from /diagnostics alone: `python -m edge_vision top`.

command   `cli/top/command.py`    command line, one printed picture or the live loop
board     `cli/top/board.py`      the last statuses, grouped by pipeline
drawing   `cli/top/drawing.py`    a pipeline as lines of text
screen    `cli/top/screen.py`     the live picture: selection and scrolling
terminal  `cli/top/terminal.py`   keyboard input
"""
