"""Runs a program: `fast` in place and without a clock, `event` through an event queue."""
