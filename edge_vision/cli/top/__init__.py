"""The terminal view of running pipelines, from /diagnostics alone: `python -m edge_vision top`.

board     what came, sorted by camera
drawing   a camera as lines of text
terminal  keys, and the screen as it was before
app       from the command line to the last picture
"""
