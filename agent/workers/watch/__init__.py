"""What is declared held against what is: drift, and whom it is told to.

::

    declared  ── expectation, services ──┐
    listening ── sockets of this host ───┤
    seen      ── inventories of captures ├── judge (drift: pure) ── fold (standing: pure) ── events
    scanned   ── memory of scans ────────┘

Nothing here loads scapy, numpy or nmap: ``agentctl drift`` judges by the same modules.
"""
