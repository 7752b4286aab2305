"""How ``make bench-scan`` measures, as the page says it."""

from __future__ import annotations

METHOD = """\
`make bench-scan ARGS=--write` writes this section. Scanner and hosts are in two network namespaces that the bench
makes; in the second are Debian's nginx, sshd, redis and dnsmasq and listeners that never answer, all bound to the
addresses of 64 hosts (`tests/workers/scan/truth.py`). The way with a delay, a loss or a limit is a program between two
TUN interfaces (`tests/workers/scan/link.py`), because this kernel has no netem. Peers are Debian's: {versions}; naabu
and RustScan are missing because Debian does not package them. We are the worker as the agent starts it, from the start
of Python to what is stored; nmap is one process from its start to its XML. Rounds take both in turn, in random order; a
figure is the median of its rounds, a multiple the median of the multiples of each round, and what was found is the
least of any round:

- *ports*: one host with 100 open ports, {rounds} rounds, without CAP_NET_RAW
- *loss*: the same with 5 % lost on the way there and on the way back, once for nmap's sake. After {limit:.0f} s it is
  ended
- *cap*: the same behind a device that passes 5,000 packets a second (and a fifth of a second's worth at once) towards
  the host, which nobody was told
- *silent*: one host, once for nmap's sake
- *services*: all hosts of the link but the one that says open to everything and the one that never stops talking (a
  tarpit), at which nmap does not come to an end in a quarter of an hour; 1,000 ports each, {again} rounds. Named is
  what nmap calls `probed`, without `tcpwrapped`
- *discovery*: a /20 one router away, {rounds} rounds: one in which each sixteenth address answers and the others are
  silent, and (*crowd*) one in which all do. Memory is the most that our worker and its nmap have together, of ten
  looks a second in a run of its own over the latter
- *kill -9*: {kills} scans of 24 hosts and 1,000 ports at {rate:,} a second, each killed once at a random moment and run
  again. tcpdump writes down every SYN that arrives; complete means that each was asked and the second run ended well
"""
