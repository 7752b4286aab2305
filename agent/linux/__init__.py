"""Thin wrappers of the operating system: plain functions and small classes on file descriptors.

Nothing here knows an event loop. Whatever can be waited for has a descriptor that polls readable, and a non-blocking
method to call when it does. Nothing here keeps a lock either: the agent is one thread.
"""
