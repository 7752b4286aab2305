"""Captured packets found again: by the language of pcap-filter(7), over all segments of a store, in order of time.

::

    expression ── narrow ── search ── merge ── pcapng, savefile, summary
                  which     which     in order
                  flows     packets   of time     └ offline: libpcap's own filter has the last word

Nothing here needs the agent, the capture or an index: where there is no index, packets are read one by one, by libpcap.
"""
