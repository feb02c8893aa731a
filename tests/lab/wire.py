#!/usr/bin/env python3
"""A bad network cable: passes frames between two interfaces late, and loses some.

usage: wire.py INTERFACE INTERFACE DELAY_MS LOSS_PERCENT

netem does this in the kernel where the kernel has it; many small kernels have not.
"""

import heapq
import random
import select
import socket
import sys
import time

ETH_P_ALL = 3
SOL_PACKET = 263
# Frames come and go with the header that tells of checksums and segments still to be made: the kernel makes them later.
PACKET_VNET_HDR = 15
PACKET_OUTGOING = 4
MAX_FRAME = 65536 + 128


def attach(interface):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.bind((interface, 0))
    return end


def main():
    first, second, delay, loss = sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000, float(sys.argv[4]) / 100
    left, right = attach(first), attach(second)
    other = {left: right, right: left}
    under_way, count = [], 0
    print("ready", flush=True)
    while True:
        wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([left, right], [], [], wait)
        for end in readable:
            frame, origin = end.recvfrom(MAX_FRAME)
            if origin[2] == PACKET_OUTGOING or random.random() < loss:
                continue
            count += 1
            heapq.heappush(under_way, (time.monotonic() + delay, count, other[end], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(under_way)
            try:
                end.send(frame)
            except OSError as error:
                # An interface that is down loses frames, as a cable would.
                print(error, file=sys.stderr, flush=True)


main()
