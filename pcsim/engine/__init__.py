"""Runs a program: `fast` in place, `event` through an event queue, `distributed` in several processes.

`timing` and `mesh` simulate time alone, of layers and of their parts on a chip; `backprop` is the baseline.
"""
