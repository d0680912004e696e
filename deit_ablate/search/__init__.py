"""Searches: trials that Optuna asks for, pruned, and confirmed on fresh seeds."""
