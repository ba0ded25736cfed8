"""Measuring on another machine over SSH.

address    ssh://[user@]host[:port][/path/to/python]
agent      runs on the device: a cache of files by hash, and the trial in a child process
session    the connection: the system's ssh, and requests to the agent
package    this package's source as a zip file, which the device runs
executor   runs measurements on the device, everything else here
"""
