"""The process that executes an attempt: claim a run, train it, record it. Nobody imports it; see ``__main__``."""
