"""Who is there: hosts with their addresses, names and services, from what they say of themselves on the wire.

::

    segment ── control ── rate ── dissect ──┐
               which       how    what they ├── table ── snapshot (hosts.json) ── view ── agentctl hosts
               packets     many   say       │   who is
    index ───── offered ────────────────────┘   there
                who answers on what port

Only control packets are dissected, chosen by libpcap's filter, and no more of them than ``rate`` allows. What comes
out is a ``Sighting``: who says what of whom. ``table`` folds them; ``view`` makes hosts of what was folded. Those two
and ``snapshot`` load neither scapy nor numpy, for ``agentctl`` reads by them.
"""
