//! Signals for a program whose `connect` waits for a host that does not answer.

use std::{net::SocketAddr, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::net::{AddressFamily, SocketFlags, SocketType, accept, socket_with};
use system_tests::{TestNode, within};

const LIMIT: Duration = Duration::from_secs(60);
const PYTHON: &str = "/usr/bin/python3";
/// Long after the signal, and before the kernel gives up.
const LATE: f64 = 15.0;
const PROGRAM: &str = r"
import signal, socket, sys, threading, time
where, what = sys.argv[1:]
class Over(Exception): pass
def over(*_): raise Over()
came = []
if what == 'ends':
    signal.signal(signal.SIGALRM, over)
else:
    signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    signal.siginterrupt(signal.SIGALRM, False)
port = int(where)
if not port:
    own = socket.create_server(('127.0.0.1', 0), backlog=0)
    port = own.getsockname()[1]
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(('127.0.0.1', port))
    def later():
        time.sleep(1.5)
        while True: fillers.append(own.accept()[0])
    if what != 'ends': threading.Thread(target=later, daemon=True).start()
waits = socket.socket()
signal.alarm(1)
since = time.monotonic()
try:
    waits.connect(('127.0.0.1', port))
    said = 'connected'
except Over: said = 'over'
except OSError as error: said = str(error)
print(said, len(came), time.monotonic() - since)
";

/// Takes no more connections: what asks for one hears nothing.
fn full() -> (OwnedFd, u16, Vec<OwnedFd>) {
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let place = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
    let fill = |_| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let filler = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let _ = rustix::net::connect(&filler, &place);
        filler
    };
    (listener, place.port(), (0..4).map(fill).collect())
}

fn node() -> Option<TestNode> {
    if !Path::new(PYTHON).exists() {
        println!("skipped: no {PYTHON} (apt-get install python3)");
        return None;
    }
    TestNode::boot()
}

/// What it said, how many signals it has heard by then, and how long its connect took.
fn heard(node: &TestNode, port: u16, what: &str) -> (String, String, f64) {
    let named = format!("127.0.0.1:{}", if port == 0 { 1 } else { port });
    let port = port.to_string();
    let output = node.run(&["run", "--egress", &named, "--", PYTHON, "-c", PROGRAM, &port, what]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut words: Vec<&str> = said.split_whitespace().rev().collect();
    let (took, signals) = (words.remove(0).parse().unwrap(), words.remove(0).to_owned());
    (words.into_iter().rev().collect::<Vec<_>>().join(" "), signals, took)
}

/// On the host, and on the program's own loopback.
#[test]
fn an_alarm_breaks_off_a_connect_that_waits() {
    let Some(node) = node() else { return };
    let (_listener, port, _fillers) = full();
    for port in [port, 0] {
        let (said, _, took) = heard(&node, port, "ends");
        assert_eq!(said, "over");
        assert!((0.9..LATE).contains(&took), "{took} s");
    }
    assert_eq!(node.log(&["ConnectionAuthorize"]).len(), 1);
}

/// As with a call of the kernel's own: the handler runs, and the same connect comes about.
#[test]
fn a_connect_that_is_made_anew_after_a_signal_waits_on() {
    let Some(node) = node() else { return };
    let (listener, port, _fillers) = full();
    let accept_late = || {
        assert!(within(LIMIT, || !node.log(&["ConnectionAuthorize"]).is_empty()));
        // Behind the signal.
        std::thread::sleep(Duration::from_secs(2));
        // Those that filled it, and the program's.
        (0..3).map(|_| accept(&listener).unwrap()).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let accepting = scope.spawn(accept_late);
        for port in [port, 0] {
            let (said, signals, took) = heard(&node, port, "goes on");
            assert_eq!((said.as_str(), signals.as_str()), ("connected", "1"));
            assert!(took > 1.4, "{took} s");
        }
        accepting.join().unwrap();
    });
    // It is not decided once more.
    assert_eq!(node.log(&["ConnectionAuthorize"]).len(), 1);
}
