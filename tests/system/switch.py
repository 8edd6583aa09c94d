#!/usr/bin/env python3
"""A switch whose links are long and narrow, for network namespaces. (The kernel's netem could do
that as well, but many kernels are built without it.)

    switch.py DELAY_MS MBIT INTERFACE...

It passes frames on between these interfaces of its own network namespace. A frame is on its way
for DELAY_MS, and besides has to wait until the link by which it comes and the one by which it goes
have carried those before it, MBIT (millions of bits a second) in each direction. One that would
wait for more than a quarter of a second is dropped, as a full buffer would.
"""
import heapq
import select
import socket
import sys
import time

ALL_PROTOCOLS = 0x0003
# From linux/if_packet.h.
SOL_PACKET, VNET_HDR, IGNORE_OUTGOING = 263, 15, 23
# In front of each frame: how it is to be cut and summed, which is left to the receiver's kernel.
HEADER = 10
BUFFER = 0.25

delay, rate = float(sys.argv[1]) / 1000, float(sys.argv[2]) * 1e6 / 8
ports = []
for name in sys.argv[3:]:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    port.setsockopt(SOL_PACKET, VNET_HDR, 1)
    port.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    port.bind((name, 0))
    port.setblocking(False)
    ports.append(port)

poll = select.poll()
for port in ports:
    poll.register(port, select.POLLIN)
by_number = {port.fileno(): port for port in ports}
# Which host is behind which port; until when each link is at work; what is under way, by the
# time at which it arrives.
behind, inward, outward, under_way, count = {}, {}, {}, [], 0


def carry(busy, port, start, size):
    """When a link has carried so many bytes that are there at `start`; None if it is too full."""
    begin = max(start, busy.get(port, 0))
    if begin - start > BUFFER:
        return None
    busy[port] = begin + size / rate
    return busy[port]


def take(port, frame):
    global count
    to, come_from = frame[HEADER:HEADER + 6], frame[HEADER + 6:HEADER + 12]
    behind[come_from] = port
    size = len(frame) - HEADER
    arrived = carry(inward, port, time.monotonic(), size)
    known = behind.get(to)
    for other in [known] if known else [other for other in ports if other is not port]:
        due = arrived and carry(outward, other, arrived, size)
        if due:
            count += 1
            heapq.heappush(under_way, (due + delay, count, other, frame))


while True:
    wait = max(0, under_way[0][0] - time.monotonic()) * 1000 if under_way else None
    for number, _ in poll.poll(wait):
        for _ in range(64):
            try:
                take(by_number[number], by_number[number].recv(1 << 17))
            except OSError:
                # Nothing more, or the link has been cut.
                break
    while under_way and under_way[0][0] <= time.monotonic():
        _, _, port, frame = heapq.heappop(under_way)
        try:
            port.send(frame)
        except OSError:
            pass
