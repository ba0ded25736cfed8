"""Evaluates gates and chains against the every-frame detector: `python -m edge_vision evaluate --help`.

    conditions --frames--> reference --detections--> events
        |                                              |
        +--> gate/, chains/ --decisions--> simulation --published--> metrics --> report, table, plot

`conditions`    real clips, and constructed sequences with exact ground truth (`sequences/`, source only)
`reference/`    the detector on every frame, cached; events of entering objects; the noise ceiling
`gate/`         gates alone, compared with motion baselines at an equal share of inferred frames
`chains/`       gate, cascade, detector and tracker together, compared with fixed intervals at equal cost
`simulation`    what a subscriber receives on each frame
`metrics/`      one class per metric; reports and tables derive from the list
`fit/`          fits a stage of the cascade to a video
"""
