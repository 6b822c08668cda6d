"""What traces tell, computed from trace files alone."""
