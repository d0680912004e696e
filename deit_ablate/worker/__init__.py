"""The process that carries an attempt: claim a run, train it, record it. Nobody imports it; see ``__main__``."""
