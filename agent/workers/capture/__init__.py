"""Packets of declared interfaces into rotating segments within a budget of bytes.

::

    kernel ring ── handle ── dumper ── store
                     │ source: one interface, its handle, its open segment, its counters
                     └ worker: all interfaces of the service in one loop

``rotation``, ``retention``, ``naming``, ``savefile`` and ``counters`` are pure; the others do what these decide.
"""
