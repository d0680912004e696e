"""How runs are made to happen: executors, on this machine and on a cluster; the states of runs; what they cost."""
