"""Programs that run in the container, each by itself: no import here reaches for another file."""
