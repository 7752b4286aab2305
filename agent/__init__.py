"""agent: declares, supervises and observes what should be true on one Linux host."""

__version__ = "0.1.0"
