//! A network for tests of names: in a network namespace of its own it has addresses, serves pages on each, and is the name
//! server of the zone `test`. Says what it was asked and who came, as lines.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a program of tests")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
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

const ADDRESSES: [&str; 4] = ["192.0.2.10/32", "192.0.2.11/32", "10.1.2.3/32", "169.254.169.254/32"];
const SIXTH: &str = "2001:db8::10/128";
const NAMES: &str = "127.0.0.1:5353";
const PAGES: u16 = 8080;
/// Longer than one server is waited for, once.
const SLOW: Duration = Duration::from_millis(2_500);
const LIFE: u32 = 60;

type Asked = Arc<Mutex<HashMap<String, usize>>>;

fn main() {
    for words in [&["link", "set", "lo", "up"][..], &["-6", "addr", "add", SIXTH, "dev", "lo", "nodad"]] {
        let _ = Command::new("ip").args(words).status();
    }
    for address in ADDRESSES {
        let status = Command::new("ip").args(["addr", "add", address, "dev", "lo"]).status().unwrap();
        assert!(status.success(), "{address}");
    }
    let pages = TcpListener::bind(("::", PAGES)).unwrap();
    std::thread::spawn(move || {
        for peer in pages.incoming().flatten() {
            std::thread::spawn(move || page(peer));
        }
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
    println!("ready");
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
    println!("came {}", SocketAddr::new(at.ip().to_canonical(), at.port()));
    let page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n";
    let _ = peer.write_all(page);
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
