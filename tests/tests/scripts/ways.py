"""One way out of a fence, tried once: prints "ok" or the error it met. Which way is the first argument.

usage: ways.py WAY FAR4 FAR6 DEVICE [ARGUMENT]   (ports of the far host: TCP and UDP 9000, UDP 443 and 53)
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import sys

way, far4, far6, device = sys.argv[1:5]
argument = sys.argv[5] if len(sys.argv) > 5 else ""
libc = ctypes.CDLL(None, use_errno=True)
PORT = 9000
WORD = b"weir?"


def syscall(number, *arguments):
    whole = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    done = libc.syscall(number, *whole)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def join(folder):
    with open(folder + "/cgroup.procs", "w") as procs:
        procs.write("0")


def talk(s):
    """Sends a word on a connected socket and hears the echo."""
    s.settimeout(5)
    s.sendall(WORD)
    if not s.recv(64):
        raise OSError(errno.ECONNRESET, "closed")


def tcp(family=socket.AF_INET, to=None, prepare=lambda s: None, protocol=0):
    with socket.socket(family, socket.SOCK_STREAM, protocol) as s:
        prepare(s)
        s.settimeout(5)
        s.connect(to or (far4, PORT))
        talk(s)


def udp(to, family=socket.AF_INET, protocol=0, connect=False):
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as s:
        if connect:
            s.connect(to)
            s.send(WORD)
        else:
            s.sendto(WORD, to)


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request():
    head = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    return struct.pack("!BBHHH", 8, 0, checksum(head), 7, 1)


def ip_packet(payload, protocol):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, b"\0\0\0\0", socket.inet_aton(far4))
    return head + payload


def raw(protocol, packet, option=None):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as s:
        if option:
            s.setsockopt(*option)
        s.sendto(packet, (far4, 0))


def frame():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((device, 0))
        s.send(b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + ip_packet(echo_request(), 1))


def ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1) as s:
        s.sendto(echo_request(), (far4, 0))


def sendmmsg():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        address = ctypes.create_string_buffer(struct.pack("=HH4s8x", socket.AF_INET, socket.htons(PORT), socket.inet_aton(far4)))
        word = ctypes.create_string_buffer(WORD, len(WORD))
        vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(word), len(WORD)))
        # struct mmsghdr: name, its length, vectors, their number, control, its length, flags, sent.
        message = struct.pack("=QIxxxxQQQQixxxxIxxxx", ctypes.addressof(address), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
        buffer = ctypes.create_string_buffer(message, len(message))
        syscall(307, s.fileno(), buffer, 1, 0)


def spoof():
    """A question in the far host's name: is the answer sent there?"""
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\4weir\4test\0" + struct.pack("!2H", 1, 1)
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
        s.bind((far4, 4444))
        s.sendto(question, (far4, 53))
        s.settimeout(1 if "LABELLED" in os.environ else 0.1)
        try:
            s.recv(512)
        except TimeoutError:
            pass


def fast_open(option):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        if option:
            s.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
            s.connect((far4, PORT))
            s.sendall(WORD)
        else:
            s.sendto(WORD, socket.MSG_FASTOPEN, (far4, PORT))
        if not s.recv(64):
            raise OSError(errno.ECONNRESET, "closed")


def reconnect():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        try:
            s.connect((far4, PORT))
        except OSError:
            pass
        unspec = struct.pack("=H14x", socket.AF_UNSPEC)
        libc.connect(s.fileno(), unspec, len(unspec))
        s.connect((far4, PORT))
        talk(s)


def repair():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR: connected without a handshake
        s.connect((far4, PORT))
        s.setsockopt(socket.IPPROTO_TCP, 19, 0)
        talk(s)


def uring():
    """IORING_OP_CONNECT: the socket connects without the system call."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        parameters = ctypes.create_string_buffer(120)
        ring = syscall(425, 4, parameters)
        sq, cq = struct.unpack_from("=10I", parameters, 40), struct.unpack_from("=10I", parameters, 80)
        size = max(sq[6] + 4 * 4, cq[5] + 16 * 8)
        rings = mmap.mmap(ring, size, mmap.MAP_SHARED, offset=0)
        entries = mmap.mmap(ring, 64 * 4, mmap.MAP_SHARED, offset=0x10000000)
        address = ctypes.create_string_buffer(struct.pack("=HH4s8x", socket.AF_INET, socket.htons(PORT), socket.inet_aton(far4)))
        # struct io_uring_sqe: opcode 16 (connect), descriptor, address length, address.
        entries[0:32] = struct.pack("=BBHiQQII", 16, 0, 0, s.fileno(), 16, ctypes.addressof(address), 0, 0)
        struct.pack_into("=I", rings, sq[6], 0)
        struct.pack_into("=I", rings, sq[1], 1)
        syscall(426, ring, 1, 1, 1, None, 0)
        result = struct.unpack_from("=QiI", rings, cq[5])[1]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        talk(s)


def every_protocol():
    """Every family, type and protocol the kernel knows: prints those that open beside the ones the fence sees."""
    seen = {(socket.AF_INET, 1, 6), (socket.AF_INET, 2, 17), (socket.AF_INET6, 1, 6), (socket.AF_INET6, 2, 17)}
    others = set()
    for family in range(46):
        if family in (socket.AF_UNIX, socket.AF_NETLINK):
            continue
        for kind in range(1, 7):
            for protocol in list(range(0, 150)) + [255, 256, 262]:
                try:
                    with socket.socket(family, kind, protocol) as s:
                        real = (family, kind, s.getsockopt(socket.SOL_SOCKET, 38))  # SO_PROTOCOL
                except OSError:
                    continue
                if real not in seen:
                    others.add(real)
    if not others:
        raise OSError(errno.EPERM, "nothing else opens")
    return len(others)


def friend(then):
    """Takes a socket from an unlabelled friend on the unix socket named by the argument."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(argument)
        _, descriptors, _, _ = socket.recv_fds(s, 16, 1)
    with socket.socket(fileno=descriptors[0]) as s:
        return then(s)


def connect_and_talk(s):
    s.connect((far4, PORT))
    talk(s)


def outlives(s):
    """The connection did not pass the fence: does it live on? A labelled one has 20 s to be ended."""
    poll = select.poll()
    poll.register(s, 0)
    if poll.poll(20_000 if "LABELLED" in os.environ else 0):
        raise OSError(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNABORTED, "ended")
    talk(s)


def names_its_peer(s):
    """The same for a datagram socket, which loses its peer."""
    poll = select.poll()
    poll.register(s, 0)
    if poll.poll(20_000 if "LABELLED" in os.environ else 0):
        raise OSError(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNABORTED, "ended")
    s.send(WORD)


def older_datagrams():
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.connect((far4, PORT))
        join(argument)
        names_its_peer(s)


def older():
    with socket.create_connection((far4, PORT)) as s:
        talk(s)
        join(argument)
        outlives(s)


def late(act):
    join(argument)
    act()


def late_socket():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        join(argument)
        s.connect((far4, PORT))
        talk(s)


def own_namespace():
    """A network of one's own, and a server in it."""
    flags = 0x10000000 | 0x40000000  # CLONE_NEWUSER | CLONE_NEWNET
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno() or errno.EPERM, "unshare")
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("=16sH22x", b"lo", 1))  # SIOCSIFFLAGS: up
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as s:
        s.settimeout(5)
        s.connect(server.getsockname())
        s.sendall(WORD)
        server.settimeout(5)
        try:
            near, _ = server.accept()
        except TimeoutError:
            raise OSError(errno.ECONNRESET, "it went elsewhere")
        near.sendall(WORD)
        talk(s)


def steal(pid, descriptor):
    pidfd = os.pidfd_open(int(pid))
    taken = syscall(438, pidfd, int(descriptor), 0)
    with socket.socket(fileno=taken) as s:
        talk(s)


def write_into(pid):
    syscall(311, int(pid.split(",")[0]), None, 0, None, 0, 0)  # process_vm_writev


def born_elsewhere():
    """A child that begins in another cgroup (CLONE_INTO_CGROUP) and connects."""
    folder = os.open(argument, os.O_DIRECTORY)
    # struct clone_args: the flags come first, the signal of its end fifth, the cgroup last.
    words = struct.pack("=11Q", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, folder)
    child = syscall(435, ctypes.create_string_buffer(words, len(words)), len(words))
    if child == 0:
        try:
            tcp()
            os._exit(0)
        except OSError as fault:
            os._exit(fault.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def keep_key():
    """add_key: a request for a key may have the kernel start a program that looks a name up."""
    syscall(248, b"user", b"weir", WORD, len(WORD), -2)


def attach(pid):
    if libc.ptrace(0x4206, int(pid.split(",")[0]), None, None) != 0:  # PTRACE_SEIZE
        raise OSError(ctypes.get_errno(), "ptrace")


def bound(s):
    s.bind(("0.0.0.0", 0))


def marked(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, b"\xff" * 4)


def transparent(s):
    s.setsockopt(socket.IPPROTO_IP, 19, 1)
    s.bind(("0.0.0.0", 0))


def device_bound(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())


def vsock():
    """Opens one: whether somebody answers is the hypervisor's affair."""
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()


WAYS = {
    "tcp": tcp,
    "tcp-v6": lambda: tcp(socket.AF_INET6, (far6, PORT)),
    "tcp-mapped": lambda: tcp(socket.AF_INET6, ("::ffff:" + far4, PORT)),
    "tcp-bound": lambda: tcp(prepare=bound),
    "tcp-mark": lambda: tcp(prepare=marked),
    "tcp-device": lambda: tcp(prepare=device_bound),
    "tcp-transparent": lambda: tcp(prepare=transparent),
    "tcp-fastopen": lambda: fast_open(False),
    "tcp-fastopen-connect": lambda: fast_open(True),
    "tcp-reconnect": reconnect,
    "tcp-repair": repair,
    "tcp-uring": uring,
    "tcp-uring-unguarded": lambda: late(uring),
    "mptcp": lambda: tcp(protocol=262),
    "sctp": lambda: tcp(protocol=132),
    "udp": lambda: udp((far4, PORT)),
    "udp-v6": lambda: udp((far6, PORT), socket.AF_INET6),
    "udp-mapped": lambda: udp(("::ffff:" + far4, PORT), socket.AF_INET6),
    "udp-connected": lambda: udp((far4, PORT), connect=True),
    "udp-sendmmsg": sendmmsg,
    "udp-quic": lambda: udp((far4, 443)),
    "udp-dns": lambda: udp((far4, 53)),
    "udp-spoofed": spoof,
    "udplite": lambda: udp((far4, PORT), protocol=136),
    "raw-icmp": lambda: raw(1, echo_request()),
    "raw-header": lambda: raw(255, ip_packet(echo_request(), 1)),
    "ping": ping,
    "packet": frame,
    "vsock": vsock,
    "every-protocol": every_protocol,
    "late-socket": late_socket,
    "older-connection": older,
    "older-datagrams": older_datagrams,
    "passed-socket": lambda: friend(connect_and_talk),
    "passed-connection": lambda: friend(outlives),
    "passed-datagrams": lambda: friend(names_its_peer),
    "inherited-connection": lambda: talk(socket.socket(fileno=int(argument))),
    "own-namespace": own_namespace,
    "leave-cgroup": lambda: late(tcp),
    "born-elsewhere": born_elsewhere,
    "pidfd-getfd": lambda: steal(*argument.split(",")),
    "ptrace": lambda: attach(argument),
    "write-memory": lambda: write_into(argument),
    "key": keep_key,
    "neighbour": lambda: tcp(to=("127.0.0.1", int(argument))),
}


try:
    found = WAYS[way]()
    print("ok" if found is None else f"ok: {found}")
except OSError as fault:
    print(errno.errorcode.get(fault.errno, str(fault)))
