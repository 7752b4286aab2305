"""The index of a segment: a table of flows, and for each flow where its packets are.

::

    bytes of a segment ── records ── headers ── flows ── form
                          where each  what it    one row  on disk
                          packet is   says       a flow

Everything but ``form`` is a function of bytes, and works on arrays: no Python runs per packet. numpy is loaded here and
by those who read an index, never by the process that captures.
"""
