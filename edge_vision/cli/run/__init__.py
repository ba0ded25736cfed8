"""The command `edge-vision run`: the pipeline of nodes, or with `--out` a bag in and a bag out, without ROS.

command      `cli/run/command.py`      command line, from bag to bag
frame_chain  `cli/run/frame_chain.py`  gate, detector and tracker, frame by frame
result_bag   `cli/run/result_bag.py`   messages, and a file that appears when it is complete
"""
