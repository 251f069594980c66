"""Races of a program against whoever answers its calls: `egress_races.py WHAT ROUNDS ALLOWED OTHER`, each `HOST:PORT`.

The standard library alone. A call by ctypes lets the other thread run while the kernel, or its deputy, reads what it was given."""

import ctypes, errno, os, random, socket, struct, sys, threading, time
from collections import Counter

libc = ctypes.CDLL(None, use_errno=True)
what, rounds = sys.argv[1], int(sys.argv[2])


def place(text):
    host, port = text.rsplit(":", 1)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", int(port)) + socket.inet_aton(host) + bytes(8)


allowed, other = place(sys.argv[3]), place(sys.argv[4])
over = threading.Event()
heard = Counter()
THREADS = 16


def beside(act):
    def again():
        while not over.is_set():
            act()
    thread = threading.Thread(target=again)
    thread.start()
    return thread


def stream():
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def told(done):
    heard["done" if done == 0 else os.strerror(ctypes.get_errno())] += 1


sys.setswitchinterval(1e-5)
# By chance, not in turns: the interpreter's lock would keep the two threads in step.
if what == "address":
    # The place that is asked for changes while it is looked at. Many at once, since each that is let out waits for the log.
    left = iter(range(rounds))
    def race():
        memory = ctypes.create_string_buffer(allowed, 16)
        memories.append(memory)
        while next(left, None) is not None:
            done = errno.EAGAIN
            while done == errno.EAGAIN:
                with stream() as one:
                    done = libc.connect(one.fileno(), memory, 16) and ctypes.get_errno()
                # No more of them a second: it was not decided, and is no round.
                if done == errno.EAGAIN:
                    time.sleep(0.01)
            heard["done" if done == 0 else os.strerror(done)] += 1
    memories = []
    def rewrite():
        for memory in memories[:]:
            ctypes.memmove(memory, random.choice((allowed, other)), 16)
    thread = beside(rewrite)
    racing = [threading.Thread(target=race) for _ in range(THREADS)]
    for one in racing:
        one.start()
    for one in racing:
        one.join()
elif what in ("dup2", "listen"):
    # The descriptor is now one that may be used as it likes, and now a socket of the host's.
    kind = socket.SOCK_DGRAM if what == "dup2" else socket.SOCK_STREAM
    innocent, hosts = socket.socket(socket.AF_INET, kind), stream()
    if what == "listen":
        innocent.bind(("127.0.0.1", 0))
    swapped = os.dup(innocent.fileno())
    memory = ctypes.create_string_buffer(other, 16)
    def swap():
        libc.dup2(random.choice((hosts, innocent)).fileno(), swapped)
    thread = beside(swap)
    for _ in range(rounds):
        told(libc.connect(swapped, memory, 16) if what == "dup2" else libc.listen(swapped, 1))
else:
    sys.exit(f"{what} is no race")
over.set()
thread.join()
print(what, dict(heard), flush=True)
if what == "dup2":
    try:
        print("reached", hosts.getpeername(), flush=True)
    except OSError:
        print("reached nobody", flush=True)
elif what == "listen":
    # In whose network it listens is seen from outside.
    takes = hosts.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    print("listens", hosts.getsockname()[1] if takes else 0, flush=True)
    sys.stdin.readline()
