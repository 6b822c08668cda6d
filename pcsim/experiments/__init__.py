"""Whole experiments: a model trained and traced, golden cases replayed."""
