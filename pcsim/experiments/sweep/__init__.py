"""Sweeps: many runs of a model with other settings, in one process or many, and the study they make."""
