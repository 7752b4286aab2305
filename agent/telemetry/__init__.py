"""What the agent remembers and tells: events, the output of children, databases that survive."""
