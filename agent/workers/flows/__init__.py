"""Who talked to whom: rows of indexes joined into flows, shown, exported.

::

    chunks of a store ── records ── table ── fold ── top        what was most
                         in a range  joined  bounded
                                     └────── ended ── jsonl     one line a flow
                                             timeouts └ ipfix   messages to a collector

``records``, ``sender`` and ``exporter`` touch files and sockets; everything else is a function of arrays. numpy is
loaded here.
"""
