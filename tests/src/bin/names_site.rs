//! A network for tests of names: a network namespace of its own, with the name server of the zone `test`, and a neighbour
//! with other addresses who serves pages on each. Says what was asked and who came, as lines.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a program of tests")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};

/// Of this side, which leads to the neighbour for all others.
const OWN: [&str; 2] = ["192.0.2.200/32", "2001:db8::200/128"];
const NEIGHBOURS: [&str; 5] =
    ["192.0.2.10/32", "192.0.2.11/32", "10.1.2.3/32", "169.254.169.254/32", "2001:db8::10/128"];
const NAMES: &str = "127.0.0.1:5353";
const PAGES: [u16; 2] = [8080, 80];
/// Where what comes first is told, and nothing is said.
const SILENT: [&str; 2] = ["192.0.2.10:443", "192.0.2.11:443"];
/// What `web.test` leads to: ordinary servers are started there.
const SERVERS: &str = "192.0.2.12/32";
/// Where datagrams come back from as they were sent; `elsewhere` comes back from another port.
const ECHOES: [&str; 3] = ["192.0.2.10:7007", "192.0.2.11:7007", "[2001:db8::10]:7007"];
/// What the neighbour is started as, and what it says when it has its addresses.
const NEIGHBOUR: &str = "neighbour";
const READY: &str = "ready";
/// Longer than one server is waited for, once.
const SLOW: Duration = Duration::from_millis(2_500);
const LIFE: u32 = 60;

type Asked = Arc<Mutex<HashMap<String, usize>>>;

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// One end of the link between the two, with these addresses; everything else is at the other end.
fn link(name: &str, addresses: &[&str]) {
    ip("link set lo up");
    ip(&format!("link set {name} up"));
    for address in addresses {
        let family = if address.contains(':') { "-6 addr add {} dev {} nodad" } else { "addr add {} dev {}" };
        ip(&family.replacen("{}", address, 1).replacen("{}", name, 1));
    }
    ip(&format!("route add default dev {name}"));
    ip(&format!("-6 route add default dev {name}"));
}

/// Serves pages until its standard input ends.
fn neighbour() {
    let mut linked = String::new();
    std::io::stdin().read_line(&mut linked).unwrap();
    link("far", &[&NEIGHBOURS[..], &[SERVERS]].concat());
    for port in PAGES {
        serve(("::", port), page);
    }
    for place in SILENT {
        serve(place, first_bytes);
    }
    for place in ECHOES {
        let socket = UdpSocket::bind(place).unwrap();
        std::thread::spawn(move || echo(&socket));
    }
    println!("{READY}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn serve(place: impl ToSocketAddrs, each: fn(TcpStream)) {
    let listener = TcpListener::bind(place).unwrap();
    std::thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            std::thread::spawn(move || each(peer));
        }
    });
}

fn main() {
    if std::env::args().nth(1).is_some_and(|word| word == NEIGHBOUR) {
        return neighbour();
    }
    let own = std::env::current_exe().unwrap();
    let mut neighbour = Command::new("unshare")
        .args(["-n", "--"])
        .arg(own)
        .arg(NEIGHBOUR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(neighbour.stdout.take().unwrap()).lines();
    // `unshare` becomes what it starts, once the network is its own.
    let unshared = || {
        let network = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
        network(&neighbour.id().to_string()) != network("self")
    };
    while !unshared() {
        std::thread::sleep(Duration::from_millis(5));
    }
    ip(&format!("link add near type veth peer name far netns {}", neighbour.id()));
    link("near", &OWN);
    // Held for as long as this lives: the neighbour ends with it.
    let mut linked = neighbour.stdin.take().unwrap();
    linked.write_all(b"linked\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), READY);
    std::thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| println!("{line}"));
        let _ = neighbour.wait();
    });
    let asked = Asked::default();
    let by_tcp = TcpListener::bind(NAMES).unwrap();
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut peer in by_tcp.incoming().flatten() {
            let mut length = [0; 2];
            peer.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            peer.read_exact(&mut question).unwrap();
            if let Some(answer) = answer(&question, &seen, true) {
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                peer.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        }
    });
    let names = UdpSocket::bind(NAMES).unwrap();
    println!("{READY}");
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = names.recv_from(&mut buffer).unwrap();
        let (question, names, asked) =
            (buffer[..length].to_vec(), names.try_clone().unwrap(), Arc::clone(&asked));
        std::thread::spawn(move || reply(&names, from, &question, &asked));
    }
}

fn reply(names: &UdpSocket, from: SocketAddr, question: &[u8], asked: &Asked) {
    if let Some(answer) = answer(question, asked, false) {
        let _ = names.send_to(&answer, from);
    }
}

fn echo(socket: &UdpSocket) {
    let at = socket.local_addr().unwrap();
    let mut buffer = vec![0; 70_000];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        println!("datagram {at} {length}");
        let heard = &buffer[..length];
        let _ = match heard {
            b"elsewhere" => UdpSocket::bind((at.ip(), 0)).unwrap().send_to(heard, from),
            _ => socket.send_to(heard, from),
        };
    }
}

/// One line of it says which host was asked for.
fn page(mut peer: TcpStream) {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = peer.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..read]);
        if heard.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let at = peer.local_addr().unwrap();
    let at = SocketAddr::new(at.ip().to_canonical(), at.port());
    println!("came {at}");
    if heard.is_empty() {
        return;
    }
    println!("heard {at}");
    let page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n";
    let _ = peer.write_all(page);
}

/// Tells that somebody has said something.
fn first_bytes(mut peer: TcpStream) {
    let at = peer.local_addr().unwrap();
    if matches!(peer.read(&mut [0; 1024]), Ok(1..)) {
        println!("heard {}", SocketAddr::new(at.ip().to_canonical(), at.port()));
    }
}

/// None where nothing is said.
fn answer(bytes: &[u8], asked: &Asked, stream: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    let query = question.queries.first()?.clone();
    let name = query.name.to_ascii().to_lowercase();
    println!("asked {name} {}", query.query_type);
    let before = {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(format!("{name} {}", query.query_type)).or_default();
        *count += 1;
        *count - 1
    };
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.add_query(query.clone());
    let is_v4 = query.query_type == RecordType::A;
    let v4 = |message: &mut Message, ip: &str, ttl: u32| {
        if is_v4 {
            let ip: Ipv4Addr = ip.parse().unwrap();
            message.add_answer(Record::from_rdata(query.name.clone(), ttl, RData::A(A(ip))));
        }
    };
    match name.as_str() {
        "api.test." | "a.wild.test." | "xn--bcher-kva.test." => v4(&mut message, "192.0.2.10", LIFE),
        "web.test." => v4(&mut message, "192.0.2.12", LIFE),
        "short.test." => v4(&mut message, "192.0.2.11", 1),
        "six.test." => {
            if query.query_type == RecordType::AAAA {
                let ip = "2001:db8::10".parse().unwrap();
                message.add_answer(Record::from_rdata(query.name.clone(), LIFE, RData::AAAA(AAAA(ip))));
            }
        }
        "alias.test." => {
            let target = Name::from_ascii("api.test.").unwrap();
            let cname = RData::CNAME(CNAME(target.clone()));
            message.add_answer(Record::from_rdata(query.name.clone(), LIFE, cname));
            if is_v4 {
                message.add_answer(Record::from_rdata(target, LIFE, RData::A(A::new(192, 0, 2, 10))));
            }
        }
        "rebind.test." => v4(&mut message, "127.0.0.1", LIFE),
        "meta.test." => v4(&mut message, "169.254.169.254", LIFE),
        "mixed.test." => {
            v4(&mut message, "10.1.2.3", LIFE);
            v4(&mut message, "192.0.2.10", LIFE);
        }
        "many.test." if !stream => message.metadata.truncation = true,
        "many.test." => (1..=60).for_each(|last| v4(&mut message, &format!("192.0.2.{last}"), LIFE)),
        "slow.test." => {
            if before == 0 {
                std::thread::sleep(SLOW);
            }
            v4(&mut message, "192.0.2.10", LIFE);
        }
        // Never what was asked for.
        "liar.test." => {
            message.queries[0].name = Name::from_ascii("api.test.").unwrap();
            v4(&mut message, "192.0.2.10", LIFE);
        }
        "silent.test." => return None,
        _ => message.metadata.response_code = ResponseCode::NXDomain,
    }
    message.to_vec().ok()
}
