"""How ``make bench-capture`` measures, as the page says it."""

from __future__ import annotations

METHOD = """\
`make bench-capture ARGS=--write` writes this section. Everything is in one run and on one disk. Who sends and who
captures are in network namespaces that the bench makes, joined by a veth pair, and pinned to a processor each; the
index process is on that of the capture. Peers are Debian's: {versions}. Rounds take the programs in turn, in random
order; a figure is the median of its rounds unless it says otherwise, and a multiple is the median of the multiples of
each round:

- *loss*: {packets:,} packets with tcpreplay as fast as it goes, {rounds} times: frames of 64 bytes, and of 64, 64,
  128, 576 and 1400, {flows:,} flows over IPv4 and IPv6, some in a VLAN (`bench/traffic.py`). Everybody has a ring of
  {ring} MiB (64 is our default) and writes to a file with his own defaults: we segments with an index, the others one
  file. Counted are the packets that came out of the wire, and with capinfos those in the files
- *processor*: of the process that captures, its start and end left out, from `/proc/PID/task/*/schedstat`
- *scapy*: AsyncSniffer, by scapy.all, that keeps and writes nothing: the highest rate, to 10 %, at which it sees every
  packet of {scapy:.0f} s
- *rotation*: frames with a number each, {rotation} s at 200,000 per second; all numbers over all segments are looked
  at
- *flows*: {accounted:,} packets in a file to flows, {again} times, whole processes with all that they start: the
  index process's own code (flows, and where each packet is, written as an index), `softflowd -v 9 -r`, `nfpcapd -r`
  and pmacctd with its print plugin. Their start is what they take for one packet
- *query*: one host, one port and five minutes of an hour in segments of 64 MiB, {again} times, whole programs, with all
  of the files in memory and with none (posix_fadvise(2)). tcpdump reads all of them, with `-V`; it knows nothing of
  time. Stenographer reads from an interface alone: as much of the same flows is sent to it as fast as it goes, and so
  it is asked without a time. Its daemon runs, and has its index open; what is timed is curl. It is told to close a file
  after {age} s, before which it finds nothing, where 60 are its default
- *visible*: one packet like no other is sent, and asked for with one `agentctl capture query` after the other until
  it is in the answer, {visible} times on an idle wire and {visible} times beside a stream of 100,000 per second.
  Stenographer's own documentation (DESIGN.md) puts that at 100 to 120 s; it is not measured here
- *kill -9*: {kills} times at a random moment while numbered frames are sent as fast as it goes. Lost is what was sent
  from when it said that it captures to when it was killed, and is not stored; readable means that, with what the next
  start completes, tcpdump reads every segment to its end and every number is there once, in order
- *memory*: PSS of the capture without its ring, and of its index process, the highest of {memory} s with two looks a
  second, at 400,000 packets per second of 100,000 flows
"""
