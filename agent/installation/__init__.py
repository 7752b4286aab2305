"""The installed form of this program: laid below a prefix, upgraded, and taken back exactly as it was laid.

``goal.py`` says what an installation consists of and ``observe.py`` what is there; ``plan.py`` makes steps of the two,
and ``perform.py`` does them. ``record.py`` keeps what was laid, from before the first step on.
"""
