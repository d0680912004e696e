"""Runs in experiment trackers, from records: after the fact (``export``), or as they go (``live``).

``exporters.py`` is the registry, and what a tracker is to the rest; each tracker is a file with a class, which imports
its library when it is used. What a tracker is told of a run is made in ``runs.py``, for all of them.
"""
