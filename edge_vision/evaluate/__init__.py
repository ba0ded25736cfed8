"""Evaluates schedules, gates and chains against the every-frame detector: `edge-vision evaluate --help`.

    conditions --frames--> reference --detections--> events
        |                                              |
        +--> schedule/, gate/, chains/ --decisions--> simulation --published--> metrics --> report, table
        +--> live/ (the running pipeline) --------------------------published--^

`conditions`    real clips, and constructed sequences with exact ground truth (`sequences/`, source only)
`reference/`    the detector on every frame, cached; events of entering objects; the noise ceiling
`evaluation`    what the three commands share: selection, processes, stored results, report.json
`schedule/`     the presets on real clips, compared with fixed intervals of the same promise
`gate/`         gates alone, compared with motion baselines at an equal share of inferred frames
`chains/`       gate, cascade, detector and tracker together, compared with fixed intervals at equal cost
`simulation`    what a subscriber receives on each frame
`metrics/`      one class per metric; reports and tables derive from the list
`fit/`          fits a stage of the cascade to a video
"""
