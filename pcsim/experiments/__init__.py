"""Whole runs, checkpoints, sweeps, golden cases, benchmarks."""
