"""How ``make bench-scan`` measures, as the page says it."""

from __future__ import annotations

METHOD = """\
`make bench-scan ARGS=--write` writes this section. Scanner and hosts are in two network namespaces that the bench
makes; in the second are Debian's nginx, sshd, redis and dnsmasq and listeners that never answer, all bound to the
addresses of 64 hosts (`tests/workers/scan/truth.py`). The way with a delay, a loss or a limit is a program between two
TUN interfaces (`tests/workers/scan/link.py`), because this kernel has no netem. Versions: {versions}. {missing}We are
the worker as the agent starts it, from the start of Python to what is stored; the others are one process each, from its
start to the end of its output. Rounds take all in turn, in random order; a figure is the median of its rounds, and what
was found is the least of any round. A program is ended (Ctrl-C) after {limit:.0f} s, masscan after {hangs:.0f} s, and
what it has said by then counts. Once only are asked masscan, whose receiver may hang, and nmap in the rows of loss,
silent ports and services, in which it does little but wait for minutes: there it runs beside the making of the memory,
which waits for nothing:

- *ports*: one host with 100 open ports, {rounds} rounds, without CAP_NET_RAW
- *loss*: the same with 5 % lost on the way there and on the way back, {again} rounds
- *cap*: the same behind a device that passes 5,000 packets a second (and a fifth of a second's worth at once) towards
  the host, which nobody was told, {again} rounds
- *silent*: one host, {again} rounds. Quarantined are those that the memory lists as such
- *services*: all hosts of the link but two at which nmap does not come to an end in a quarter of an hour: the one that
  says open to everything, and one that never stops talking (a tarpit). 1,000 ports each, {again} rounds; then all 64 by
  us alone, once. A finding is an open port with its service, product and version, each of which has to be the same
  where nmap names it
- *discovery*: a /20 one router away: one in which each sixteenth address answers and the others are silent, {again}
  rounds, and (*crowd*) one in which all do, {rounds} rounds. Memory is the most that our worker and its nmap have
  together, of ten looks a second in a run of its own over the latter
- *sending*: each port of a host on the link as fast as it goes (`bench/inside/syns.py`), start left out: scapy with a
  socket that it keeps and its AsyncSniffer, and the engine of a sweep, which keeps to a rate otherwise
- *memory*: {runs:,} scans of 1,000 hosts that `bench/scan_memory.py` makes up, written by the store of the worker; a
  figure is the median of five, all of the answer read
- *kill -9*: {kills} kills of scans of the `services` profile that ask 43 hosts of the link and 1,024 addresses behind a
  router, of which 64 answer, for 200 ports each, in more than ten chunks and at {rate:,} a second; half of them by
  connect, half by SYN. A scan is killed up to seven times, whenever it has run for a random time of up to 0.6 of what
  it takes undisturbed: when it looks who is there, sweeps, asks what answers, compares, stores; its nmap too. tcpdump
  writes down every probe that arrives: an ICMP question is *discovery*, a SYN to a port that is closed *sweep*, and one
  to a port that is open *services*. (SYNs to closed ports 80 and 443 do not count, which are both; nor does ARP, which
  the kernel sends too.) What a host gets of a kind in a scan that nobody kills (the most of three) is one host's
  probes. What a host that was asked before a kill gets after it, beyond that, was sent twice, and counts as the part of
  that which it is: ten ports of 200 are 0.05 hosts, and eight hosts identified anew are 8. It is summed over all hosts
  and kinds; *by chance* is what the third of those scans has beyond the first two. Complete means that the last life
  ended well, that it was one run and is not degraded, that it found every port that is open, and that each port of each
  host that is there was asked
"""
MISSING = {
    False: "RustScan is missing because it was not installed; naabu, because Debian's Go is too old for it. ",
    True: "RustScan was built of its sources, its asynchronous crates in its versions, the others in Debian's; naabu"
    " is missing, because Debian's Go is too old for it. ",
}
"""By whether RustScan takes part."""
