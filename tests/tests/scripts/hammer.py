"""Tries to reach a host for a while, by TCP and UDP over both families. Prints how often it tried, and how many TCP
connections were answered; whether datagrams arrive only the host itself can tell.


usage: hammer.py FAR4 FAR6 SECONDS
"""

import json
import socket
import sys
import time

far = [(socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])]
end = time.monotonic() + float(sys.argv[3])
tried, through = 0, 0


def attempt(family, kind, address, port):
    with socket.socket(family, kind) as s:
        s.settimeout(0.1)
        s.connect((address, port))
        s.send(b"weir?")
        return kind == socket.SOCK_STREAM and bool(s.recv(64))


while time.monotonic() < end:
    for family, address in far:
        for kind, port in ((socket.SOCK_STREAM, 9000), (socket.SOCK_DGRAM, 9000), (socket.SOCK_DGRAM, 53)):
            tried += 1
            try:
                through += attempt(family, kind, address, port)
            except OSError:
                time.sleep(0.001)
print(json.dumps({"tried": tried, "through": through}))
