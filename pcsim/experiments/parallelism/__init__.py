"""The study of how well schedules parallelise."""
