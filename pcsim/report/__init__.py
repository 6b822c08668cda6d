"""Pictures of traces, drawn from trace files alone."""
