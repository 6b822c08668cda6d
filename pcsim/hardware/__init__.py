"""What the clock believes: how long an operation takes and how long a message is under way."""
