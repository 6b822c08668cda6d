"""Training: data sets, mini-batches, the loop."""
