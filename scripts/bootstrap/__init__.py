"""The set-up of `make demo` and `make test`; standard library only: it runs before anything is installed.

plan        the steps of each stage, in order; start reading here
machine     what this machine is: Python, ROS or no ROS, missing tools
locks       the pinned packages in requirements/*.lock
wheels      fetch packages once into the cache, install them from there
interfaces  build interfaces/vision_msgs where no ROS provides it
apt         a file out of a Debian package
stamps      which step is done, and with which inputs
progress    one line for each step, live where it takes long
places      where things are
"""
