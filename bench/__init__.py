"""Measurements, side by side with the programs that people would use instead."""
