"""Times and weighs training steps of pcsim beside those of others: `run.run_bench` is the way in.

Every contender works in a process of its own (`worker`), so nothing here may import more than the standard
library when the package is loaded: a peer may live in another environment than pcsim.
"""
