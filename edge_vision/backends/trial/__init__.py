"""The first load of a graph on this device, in a child process."""
