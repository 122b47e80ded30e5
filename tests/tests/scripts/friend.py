"""An unlabelled process that a workload may talk to. Ends with its input.

usage: friend.py FAR4 pass PATH new|connected|datagrams
                                                hands a socket to whoever connects to the unix socket PATH
       friend.py FAR4 hold UID                  holds a connection as that user, and prints PID,DESCRIPTOR
       friend.py FAR4 forward                   forwards a loopback port, which it prints
       friend.py FAR4 start COMMAND…            runs the command with a connection as an inherited descriptor
"""

import ctypes
import os
import socket
import subprocess
import sys
import threading

far, what, rest = (sys.argv[1], 9000), sys.argv[2], sys.argv[3:]


def hand_out(listener):
    while True:
        caller, _ = listener.accept()
        if rest[1] == "connected":
            s = socket.create_connection(far)
        else:
            s = socket.socket(type=socket.SOCK_DGRAM if rest[1] == "datagrams" else socket.SOCK_STREAM)
        if rest[1] == "datagrams":
            s.connect(far)
        socket.send_fds(caller, [b"!"], [s.fileno()])


def copy(source, sink):
    while chunk := source.recv(4096):
        sink.sendall(chunk)


def forward(listener):
    while True:
        near, _ = listener.accept()
        there = socket.create_connection(far)
        threading.Thread(target=copy, args=(near, there), daemon=True).start()
        threading.Thread(target=copy, args=(there, near), daemon=True).start()


if what == "start":
    s = socket.create_connection(far)
    sys.exit(subprocess.run([*rest, str(s.fileno())], pass_fds=[s.fileno()]).returncode)
if what == "pass":
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(rest[0])
    os.chmod(rest[0], 0o777)
    listener.listen()
    threading.Thread(target=hand_out, args=(listener,), daemon=True).start()
    print("ready", flush=True)
elif what == "forward":
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=forward, args=(listener,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
else:
    s = socket.create_connection(far)
    os.setuid(int(rest[0]))
    libc = ctypes.CDLL(None)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: setuid has taken it away
    libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER_ANY
    print(f"{os.getpid()},{s.fileno()}", flush=True)
sys.stdin.read()
