"""What is simulated: local units with their activity, their outgoing connection and their inbox."""
