"""The set-up of `make demo` and `make test`; standard library only, because it runs before anything is installed.

    machine     what this machine is: Python, ROS or no ROS, missing tools
    locks       the pinned packages in requirements/*.lock
    wheels      fetch packages once into the cache, install them from there
    interfaces  build interfaces/vision_msgs where no ROS provides it
    stamps      which step is done, and with which inputs
    progress    one line for each step, live where it takes long
    plan        the steps of each stage, in order
"""
