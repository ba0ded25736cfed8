"""Judges a frame gate against an every-frame detector: `python -m edge_vision evaluate gate --help`.

    scenes --frames, truth--> reference --what every frame shows--> events
       |                          |                                    |
       +--> methods --decisions---+--> simulate --what is published----+--> metrics --> verdict, report, plot

scenes      `scenes.py`      constructed sequences from real frames, with exact truth, and real clips
reference   `reference.py`   the detector on every frame, kept on disk
events      `events.py`      entries of objects, as the every-frame detector sees them
methods     `judged.py`      our gate, and the rivals
simulate    `simulate.py`    what a subscriber gets: inferred or tracked boxes, per frame
metrics     `metrics.py`     delay, recall, F1, calls, per condition and never pooled

`python -m edge_vision evaluate cascade` compares whole chains on the same scenes:

chains      `chains.py`      a gate and a cascade behind it, and what they cost
identity    `identity.py`    whether published ids stay with their objects
savings     `savings.py`     CPU against the detector on every frame and against fixed intervals
"""
