"""Bypasses of a way out that hands sockets of the host's to a program, and the prototype that had each of them.

    egress_bypasses.py serve                                 two servers; says where they are
    egress_bypasses.py try ALLOWED OTHER NAME...             each as a program that was given ALLOWED alone
    egress_bypasses.py prototype FILTER NAME [REMOVED,...]   the same in the prototype, with these of its guards removed

A bypass is won if OTHER has heard of the program, and not if the program believes so: ALLOWED says who came. The prototype's
host is a network of its own, in a user namespace of its own: it needs no right and touches nothing. The standard library alone."""

import ctypes, errno, fcntl, json, mmap, os, random, signal, socket, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
ALLOW, KILL = 0x7FFF0000, 0x80000000
SOCKET, CONNECT, BIND, LISTEN, SENDTO, SENDMSG, SENDMMSG, SETSOCKOPT, IOCTL = 41, 42, 49, 50, 44, 46, 307, 54, 16
FASTOPEN, NETNS_COOKIE, PIDFD_THREAD = 0x20000000, 71, 0o200
QUIET = 0.4  # longer than a packet on one host takes


class Held(Exception):
    """Refused, or without effect."""


class Absent(Exception):
    """This kernel has nothing of the kind."""


def call(number, *arguments):
    done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def raw(place):
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", place[1]) + socket.inet_aton(place[0]) + bytes(8)


def parse(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def stream(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_STREAM)


def cookie(one):
    return one.getsockopt(socket.SOL_SOCKET, NETNS_COOKIE, 8)


# --- who is reached ---------------------------------------------------------------------------------------------------------


class Servers:
    """ALLOWED tells whoever asks what was seen so far. OTHER takes what comes, by TCP and at the same port by UDP."""

    def __init__(self):
        self.seen = {"other": 0, "datagrams": 0, "ended": 0, "routed": 0}
        self.allowed, self.other = stream(), stream()
        for one in (self.allowed, self.other):
            one.bind(("127.0.0.1", 0))
            one.listen(512)
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(self.other.getsockname())
        for serves in (self.tell, self.take, self.hear):
            threading.Thread(target=serves, daemon=True).start()

    def tell(self):
        while True:
            threading.Thread(target=self.answer, args=(self.allowed.accept()[0],), daemon=True).start()

    def answer(self, peer):
        try:
            while peer.recv(1):
                peer.sendall(json.dumps(self.seen).encode() + b"\n")
        except OSError:
            pass
        self.seen["ended"] += 1

    def take(self):
        while True:
            self.other.accept()[0].close()
            self.seen["other"] += 1

    def hear(self):
        while True:
            self.datagrams.recv(100)
            self.seen["datagrams"] += 1

    def places(self):
        return ["%s:%d" % one.getsockname() for one in (self.allowed, self.other)]


class Connection:
    """To ALLOWED, which says what was seen."""

    def __init__(self, allowed):
        self.one = stream()
        self.one.connect(allowed)
        self.one.settimeout(5)

    def seen(self):
        self.one.sendall(b"?")
        said = b""
        while not said.endswith(b"\n"):
            part = self.one.recv(1000)
            if not part:
                raise Held("the connection has ended")
            said += part
        return json.loads(said)


# --- the bypasses: each is one function, which returns how it is counted when it is won --------------------------------------


def beside(act):
    over = threading.Event()
    def again():
        while not over.is_set():
            act()
    thread = threading.Thread(target=again)
    thread.start()
    def end():
        over.set()
        thread.join()
    return end


ROUNDS = int(os.environ.get("ROUNDS", "400"))


def rewrite(allowed, other):
    """The address is another one when the kernel reads it."""
    memory = ctypes.create_string_buffer(raw(allowed), 16)
    end = beside(lambda: ctypes.memmove(memory, raw(random.choice((allowed, other))), 16))
    for _ in range(ROUNDS):
        with stream() as one:
            libc.connect(one.fileno(), memory, 16)
    end()
    return "other"


def swap(allowed, other):
    """The descriptor is a datagram socket, which may connect, when it is looked at, and the host's when the kernel does."""
    innocent, hosts = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), stream()
    swapped, memory = os.dup(innocent.fileno()), ctypes.create_string_buffer(raw(other), 16)
    end = beside(lambda: libc.dup2(random.choice((hosts, innocent)).fileno(), swapped))
    for _ in range(ROUNDS * 5):
        libc.connect(swapped, memory, 16)
    end()
    return "other"


def listen(allowed, other):
    """`listen` binds by itself, and then takes connections of the host."""
    one = stream()
    one.listen(1)
    takes = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not takes or cookie(one) == cookie(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
        raise Held("it listens in its own network")


def fast_open_sendto(allowed, other):
    """Data with an address connects."""
    stream().sendto(b"x", FASTOPEN, other)
    return "other"


def fast_open_sendmsg(allowed, other):
    stream().sendmsg([b"x"], [], FASTOPEN, other)
    return "other"


def fast_open_sendmmsg(allowed, other):
    one, name, data = stream(), ctypes.create_string_buffer(raw(other), 16), ctypes.create_string_buffer(b"x", 1)
    vector = struct.pack("=QQ", ctypes.addressof(data), 1)
    vector = ctypes.create_string_buffer(vector, len(vector))
    message = struct.pack("=QIxxxxQQQQixxxxI4x", ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
    call(SENDMMSG, one.fileno(), ctypes.create_string_buffer(message, len(message)), 1, FASTOPEN)
    return "other"


def ring(allowed, other):
    """A ring carries calls out that no filter sees."""
    one, parameters = stream(), ctypes.create_string_buffer(120)
    fd = call(425, 2, parameters)
    words = struct.unpack("=30I", parameters.raw)
    area = lambda at: mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, offset=at)
    queue, entries, done = area(0), area(0x10000000), area(0x8000000)
    name = ctypes.create_string_buffer(raw(other), 16)
    entries[:64] = struct.pack("=BBHiQQ40x", 16, 0, 0, one.fileno(), 16, ctypes.addressof(name))
    queue[words[16]:words[16] + 4] = struct.pack("=I", 0)
    queue[words[11]:words[11] + 4] = struct.pack("=I", 1)
    call(426, fd, 1, 1, 1, None, 0)
    error = -struct.unpack_from("=i", done, words[25] + 8)[0]
    if error > 0:
        raise Held("by the ring: " + os.strerror(error))
    return "other"


def other_numbers(allowed, other):
    """A call by the numbers of 32-bit programs, which a filter for 64-bit ones takes for another."""
    one, low = stream(), mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, prot=7)
    # push rbx; mov ebx, edi; mov ecx, esi; mov eax, 362 (connect); int 0x80; pop rbx; ret
    low[:13] = bytes.fromhex("53 89fb 89f1 b86a010000 cd80 5b")[:13]
    low[13:14] = b"\xc3"
    low[2048:2064] = raw(other)
    at = ctypes.addressof(ctypes.c_char.from_buffer(low))
    done = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(at)(one.fileno(), at + 2048, 16)
    if done == -errno.ENOSYS:
        raise Absent("no 32-bit calls")
    if done < 0:
        raise Held(os.strerror(-done))
    return "other"


def x32_numbers(allowed, other):
    """The same by those of x32."""
    one = stream()
    try:
        call(0x40000000 | CONNECT, one.fileno(), ctypes.create_string_buffer(raw(other), 16), 16)
    except OSError as error:
        raise Absent("no x32 calls") if error.errno == errno.ENOSYS else error
    return "other"


def datagram(allowed, other):
    """A datagram socket that is connected sends to anybody all the same."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(allowed)
    one.sendto(b"x", other)
    return "datagrams"


def raw_packets(allowed, other):
    """A raw socket sends whatever packet it likes."""
    one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    one.sendto(struct.pack("!HHHH", 7, other[1], 9, 0) + b"x", (other[0], 0))
    return "datagrams"


def hypervisor(allowed, other):
    """A family that no network namespace divides."""
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()


ROUTED = "fd00::2"


def source_route(allowed, other):
    """The SYN goes to the first stop of a route, whatever was asked for."""
    one = stream(socket.AF_INET6)
    stops = socket.inet_pton(socket.AF_INET6, "::1") + socket.inet_pton(socket.AF_INET6, ROUTED)
    one.setsockopt(socket.IPPROTO_IPV6, 57, struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + stops)
    one.setblocking(False)
    one.connect_ex(("::1", allowed[1]))
    return "routed"


# Devices, foreign addresses, routes and connects without a connect; what takes a right of the host's is the kernel's to refuse.
OPTIONS = {
    "SO_BINDTODEVICE": (1, 25, b"lo"),
    "SO_BINDTOIFINDEX": (1, 62, struct.pack("=i", 1)),
    "SO_ATTACH_FILTER": (1, 26, None),
    "IP_FREEBIND": (0, 15, struct.pack("=i", 1)),
    "IP_OPTIONS": (0, 4, bytes([131, 7, 4, 127, 0, 0, 1, 0])),
    "IP_UNICAST_IF": (0, 50, struct.pack("!i", 1)),
    "TCP_FASTOPEN_CONNECT": (6, 30, struct.pack("=i", 1)),
    "TCP_FASTOPEN": (6, 23, struct.pack("=i", 1)),
}


def options(allowed, other):
    """Options that lead a socket elsewhere than its connect says."""
    accept = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0xFFFF), 8)
    taken = []
    for name, (level, number, value) in OPTIONS.items():
        value = value or struct.pack("=HxxxxxxQ", 1, ctypes.addressof(accept))
        try:
            stream().setsockopt(level, number, value)
            taken.append(name)
        except OSError:
            pass
    if not taken:
        raise Held("none is taken")
    print("taken:", " ".join(taken), flush=True)
    if "PROTOTYPE" in os.environ and len(taken) < len(OPTIONS) - 2:
        raise Held("only %s is taken" % taken)


def interfaces(allowed, other):
    """A handed socket lists the interfaces of its own network."""
    one, buffer = stream(), ctypes.create_string_buffer(4096)
    request = bytearray(struct.pack("=ixxxxQ", 4096, ctypes.addressof(buffer)))
    fcntl.ioctl(one, 0x8912, request)
    if not struct.unpack_from("=i", request)[0]:
        raise Held("an empty list")


def used_again(allowed, other):
    """A connection that is on record is undone, and its socket is there for another."""
    one = Connection(allowed).one
    libc_connect = libc.connect(one.fileno(), ctypes.create_string_buffer(struct.pack("=H14x", 0), 16), 16)
    if libc_connect:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def no_end(allowed, other):
    """What the program closes stays open: its peer waits for ever."""
    asking, one = Connection(allowed), Connection(allowed)
    one.seen()
    before = asking.seen()["ended"]
    one.one.close()
    until = time.time() + 3 * QUIET
    while time.time() < until:
        if asking.seen()["ended"] > before:
            raise Held("the peer has seen the end")
        time.sleep(0.02)


def asks_broker(word):
    """Only of the prototype: the test does it to a node."""
    os.write(int(os.environ["PROTOTYPE"]), word)
    time.sleep(QUIET)


def parked(allowed, other):
    """A connection that lies in a queue is not found among the descriptors of the program."""
    one, (to, held) = Connection(allowed), socket.socketpair()
    one.seen()
    socket.send_fds(to, [b"x"], [one.one.fileno()])
    one.one.close()
    asks_broker(b"r")
    _, (fd,), _, _ = socket.recv_fds(held, 1, 1)
    one.one = socket.socket(fileno=fd)
    one.one.settimeout(5)
    one.seen()


def orphaned(allowed, other):
    """When nobody answers for the program any more, what is out goes on."""
    one = Connection(allowed)
    one.seen()
    asks_broker(b"d")
    one.seen()


# By name: how it is done, and which guards it passes by, all of which have to be removed.
BYPASSES = {
    "rewrite": (rewrite, ["copy", "landlock"]),
    "swap": (swap, ["landlock"]),
    "listen": (listen, ["listen"]),
    "fast_open_sendto": (fast_open_sendto, ["fast_open"]),
    "fast_open_sendmsg": (fast_open_sendmsg, ["fast_open"]),
    "fast_open_sendmmsg": (fast_open_sendmmsg, ["fast_open"]),
    "ring": (ring, ["ring", "landlock"]),
    "other_numbers": (other_numbers, ["numbers", "landlock"]),
    "x32_numbers": (x32_numbers, ["numbers", "landlock"]),
    "datagram": (datagram, ["datagrams"]),
    "raw_packets": (raw_packets, ["kinds"]),
    "hypervisor": (hypervisor, ["families"]),
    "source_route": (source_route, ["options"]),
    "options": (options, ["options"]),
    "interfaces": (interfaces, ["interfaces"]),
    "used_again": (used_again, ["unspecified"]),
    "no_end": (no_end, ["duplicate"]),
    "parked": (parked, ["kernel_list"]),
    "orphaned": (orphaned, ["tied"]),
}


def attempt(name, allowed, other):
    """0: won, 1: held, 2: not to be had here."""
    try:
        counter = Connection(allowed)
        before = counter.seen()
        how = BYPASSES[name][0](allowed, other)
        until = time.time() + QUIET
        while how and counter.seen()[how] == before[how]:
            if time.time() > until:
                raise Held("nobody came")
            time.sleep(0.01)
        print(name, "won", flush=True)
        return 0
    except Absent as absent:
        print(name, "absent", absent, flush=True)
        return 2
    except (Held, OSError) as error:
        print(name, "held", error, flush=True)
        return 1


def apart(act):
    """In a process of its own, which a filter may kill."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(act())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- the prototype ----------------------------------------------------------------------------------------------------------


def unshared():
    """In a user namespace and an empty network of its own, with its loopback."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(0x10000000 | 0x40000000):
        raise Absent("no user namespaces: " + os.strerror(ctypes.get_errno()))
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open("/proc/self/" + file, "w") as map:
            map.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, 0x8914, struct.pack("=16sH14x", b"lo", 1 | 0x40))


def second_address():
    """ROUTED, on the loopback of this network; and who counts what goes there."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        try:
            fcntl.ioctl(one, 0x8916, socket.inet_pton(socket.AF_INET6, ROUTED) + struct.pack("=Ii", 128, 1))
        except OSError as error:
            raise Absent("no second address: %s" % error)


def count_routed(servers):
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    def again():
        while True:
            if frames.recv(100)[24:40] == socket.inet_pton(socket.AF_INET6, ROUTED):
                servers.seen["routed"] += 1
    threading.Thread(target=again, daemon=True).start()


def instruction(code, jt, jf, k):
    return struct.pack("=HBBI", code, jt, jf, k)


def passes(number, argument=None):
    """Ahead of the filter: lets one call go on, or one with this first argument."""
    if argument is None:
        tests = [instruction(0x20, 0, 0, 0), instruction(0x15, 0, 1, number)]
    else:
        tests = [
            instruction(0x20, 0, 0, 0),
            instruction(0x15, 0, 3, number),
            instruction(0x20, 0, 0, 16),
            instruction(0x15, 0, 1, argument),
        ]
    return b"".join(tests) + instruction(6, 0, 0, ALLOW)


def without(program, removed):
    """The node's own filter, but for what is removed."""
    numbers = {
        "listen": [LISTEN],
        "fast_open": [SENDTO, SENDMSG, SENDMMSG],
        "ring": [425, 426],
        "options": [SETSOCKOPT],
        "interfaces": [IOCTL],
    }
    ahead = b"".join(passes(number) for guard in removed for number in numbers.get(guard, []))
    if "families" in removed:
        ahead += passes(SOCKET, socket.AF_VSOCK)
    if "numbers" in removed:
        i386 = [instruction(0x20, 0, 0, 4), instruction(0x15, 0, 1, 0x40000003), instruction(6, 0, 0, ALLOW)]
        x32 = [instruction(0x20, 0, 0, 0), instruction(0x35, 0, 1, 0x40000000), instruction(6, 0, 0, ALLOW)]
        ahead = b"".join(i386 + x32) + ahead
    return ahead + program


def shut_in(program, removed):
    """What the launcher does; the listener."""
    if libc.prctl(38, 1, 0, 0, 0):
        raise OSError("no_new_privs")
    if "landlock" not in removed:
        attributes = ctypes.create_string_buffer(struct.pack("=QQ", 0, 3), 16)
        try:
            call(446, call(444, attributes, 16, 0), 0)
        except OSError as error:
            raise Absent("no Landlock that knows TCP: %s" % error)
    program = without(program, removed)
    memory = ctypes.create_string_buffer(program, len(program))
    filter = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(memory)), 16)
    return call(317, 1, 8, filter)


class Broker:
    """Answers a program's calls as a node does, but for the guards that are removed."""

    def __init__(self, listener, program, allowed, removed):
        self.listener, self.program, self.allowed, self.removed = listener, program, allowed, removed
        self.kept, self.own = [], cookie(stream())

    def serve(self):
        while True:
            notice = bytearray(80)
            try:
                fcntl.ioctl(self.listener, 0xC0502100, notice)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                return
            call_id, pid, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", notice)
            try:
                if not self.answer(call_id, pid, number, arguments):
                    # As a busy machine does by itself: what is looked at is old when the kernel looks.
                    time.sleep(0.0002 if number == CONNECT else 0)
                    self.respond(call_id, 0, 1)
            except OSError as error:
                self.respond(call_id, -(error.errno or errno.EPERM), 0)

    def respond(self, call_id, error, flags):
        try:
            fcntl.ioctl(self.listener, 0xC0182101, struct.pack("=QqiI", call_id, 0, error, flags))
        except OSError:
            pass  # its caller has gone

    def fetch(self, pid, number):
        process = call(434, pid, PIDFD_THREAD)
        try:
            return socket.socket(fileno=call(438, process, number, 0))
        finally:
            os.close(process)

    def answer(self, call_id, pid, number, arguments):
        """False: it goes on."""
        if number == SOCKET:
            return self.make(call_id, *[a & 0xFFFFFFFF for a in arguments[:3]])
        if number not in (CONNECT, BIND, LISTEN):
            return False
        one = self.fetch(pid, arguments[0] & 0xFFFFFFFF)
        if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type & 0xF != socket.SOCK_STREAM:
            return self.not_tcp(one, number)
        hosts = cookie(one) == self.own
        if number == LISTEN:
            if hosts:
                raise OSError(errno.EACCES, "")
            one.listen(arguments[1] & 0xFFFF)
        else:
            with open("/proc/%d/mem" % pid, "rb", 0) as memory:
                memory.seek(arguments[1])
                address = memory.read(arguments[2] & 0xFF)
            if address[:2] == bytes(2):
                if "unspecified" in self.removed:
                    return False
                raise OSError(errno.EAFNOSUPPORT, "")
            if self.reach(one, hosts, number, address) == "goes on":
                return False
        self.respond(call_id, 0, 0)
        return True

    def not_tcp(self, one, number):
        if number == LISTEN:
            one.listen(1)
        return False

    def make(self, call_id, family, kind, protocol):
        bare = kind & 0xF
        if bare == socket.SOCK_DGRAM and "datagrams" not in self.removed:
            return False
        if bare not in (socket.SOCK_STREAM, socket.SOCK_DGRAM) and "kinds" not in self.removed:
            raise OSError(errno.EPERM, "")
        with socket.socket(family, bare, protocol) as made:
            handed = struct.pack("=QIIII", call_id, 2, made.fileno(), 0, kind & 0o2000000)
            fcntl.ioctl(self.listener, 0x40182103, handed)
        return True

    def reach(self, one, hosts, number, address):
        host, port = socket.inet_ntoa(address[4:8]), struct.unpack("!H", address[2:4])[0]
        is_inet = address[:2] == struct.pack("=H", socket.AF_INET)
        # The family of the other one: nobody asks for more of it than its own host, at the port that is allowed.
        is_allowed = port == self.allowed[1] and (host == self.allowed[0] or not is_inet)
        if not hosts:
            raise OSError(errno.ENETUNREACH, "")
        if number == BIND or not is_allowed:
            raise OSError(errno.EACCES, "")
        if "copy" in self.removed:
            return "goes on"
        one.setblocking(is_inet)
        done = libc.connect(one.fileno(), ctypes.create_string_buffer(address, len(address)), len(address))
        if done and is_inet:
            raise OSError(ctypes.get_errno(), "")
        if "duplicate" in self.removed:
            self.kept.append(one)
        return "done"

    def revoke(self):
        """Looks through the descriptors of the program; then, unless that is removed, asks the kernel what is left."""
        process = call(434, self.program, 0)
        for number in os.listdir("/proc/%d/fd" % self.program):
            fd = call(438, process, int(number), 0)
            try:
                one = socket.socket(fileno=fd)
                if one.type == socket.SOCK_STREAM and one.family == socket.AF_INET and cookie(one) == self.own:
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            except OSError:
                os.close(fd)
        if "kernel_list" not in self.removed:
            with open("/proc/self/net/tcp") as table:
                rows = [line.split() for line in table.readlines()[1:]]
            to = "%08X:%04X" % (struct.unpack("=I", socket.inet_aton(self.allowed[0]))[0], self.allowed[1])
            if any(row[2] == to and row[3] == "01" for row in rows):
                os.kill(self.program, signal.SIGKILL)


def program_of(name, program, removed, allowed, other, to_broker, control):
    """The process that tries: shuts itself in, hands its listener over, and goes."""
    if "tied" not in removed:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    try:
        unshared()
        listener = shut_in(program, removed)
    except Absent as absent:
        print(name, "absent", absent, flush=True)
        os._exit(2)
    socket.send_fds(to_broker, [b"x"], [listener])
    os.close(listener)
    os.environ["PROTOTYPE"] = str(control)
    os._exit(attempt(name, allowed, other))


def broker_of(name, program, removed, allowed, other):
    """Has the program as a child, and answers for it."""
    to_broker, from_program = socket.socketpair()
    heard, control = os.pipe()
    child = os.fork()
    if child == 0:
        from_program.close()
        program_of(name, program, removed, allowed, other, to_broker, control)
    to_broker.close()
    _, fds, _, _ = socket.recv_fds(from_program, 1, 1)
    os.close(control)
    if fds:
        broker = Broker(fds[0], child, allowed, removed)
        threading.Thread(target=broker.serve, daemon=True).start()
        while word := os.read(heard, 1):
            if word == b"d":
                os._exit(0)
            broker.revoke()
    os.waitpid(child, 0)
    os._exit(0)


def prototype(program, name, removed):
    """The host, in a network of its own. Of the program it hears by its output, which ends with it."""
    if name == "hypervisor":
        try:
            hypervisor(None, None)
        except OSError as error:
            raise Absent("no vsock: %s" % error)
    unshared()
    second_address()
    servers = Servers()
    count_routed(servers)
    allowed, other = map(parse, servers.places())
    out, ended = os.pipe()
    broker = os.fork()
    if broker == 0:
        os.dup2(ended, 1)
        # Nothing of the host's servers.
        os.closerange(3, 256)
        broker_of(name, program, removed, allowed, other)
    os.close(ended)
    said = b""
    while part := os.read(out, 4096):
        said += part
    os.waitpid(broker, 0)
    text = said.decode()
    if name + " " not in text:
        text += name + " held by its end\n"
    print(text.strip())


if __name__ == "__main__":
    sys.setswitchinterval(1e-5)
    what, *rest = sys.argv[1:]
    if what == "serve":
        print(*Servers().places(), flush=True)
        sys.stdin.read()
    elif what == "try":
        allowed, other = map(parse, rest[:2])
        for name in rest[2:]:
            code = apart(lambda: attempt(name, allowed, other))
            if code < 0:
                print(name, "held by signal", -code, flush=True)
    elif what == "guards":
        for name, (_, guards) in BYPASSES.items():
            print(name, *guards)
    elif what == "prototype":
        try:
            removed = rest[2].split(",") if len(rest) > 2 else []
            prototype(bytes.fromhex(rest[0]), rest[1], removed)
        except Absent as absent:
            print(rest[1], "absent", absent)
    else:
        sys.exit(f"{what} is nothing that this does")
