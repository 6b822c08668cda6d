"""The study of thresholds, number formats and faults of messages."""
