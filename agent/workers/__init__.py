"""What runs inside a child process of the agent: one runtime, and one worker per kind of service."""
