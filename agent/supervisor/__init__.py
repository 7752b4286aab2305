"""Declared services -> running processes. The lifecycle is pure; the engine performs its effects."""
