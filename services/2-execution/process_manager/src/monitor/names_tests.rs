use std::time::Duration;

use super::*;

/// A name server on ports of this host, and what it has asked.
struct Site {
    server: NameServer,
    udp: SocketAddr,
    tcp: SocketAddr,
    next: u64,
    asked: Vec<(u64, wire::ProgramQuestion)>,
    refused: RefusedCalls,
}

impl Site {
    fn new() -> Self {
        let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (udp_place, tcp_place) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let server = NameServer::new(udp.into(), tcp.into()).unwrap();
        Self {
            server,
            udp: udp_place,
            tcp: tcp_place,
            next: 1,
            asked: Vec::new(),
            refused: RefusedCalls::default(),
        }
    }

    /// Serves until so many have been asked.
    fn serve(&mut self, count: usize) {
        for _ in 0..1_000 {
            self.turn(true);
            if self.asked.len() >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} of {count} were asked", self.asked.len());
    }

    fn turn(&mut self, is_there: bool) {
        let asked = &mut self.asked;
        let mut ask = |id, question| {
            if is_there {
                asked.push((id, question));
            }
            is_there
        };
        let mut polled = Vec::new();
        self.server.poll(&mut polled);
        rustix::event::poll(&mut polled, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        let ready = Ready::of(&polled);
        drop(polled);
        self.server.serve(&ready, &mut self.next, &mut ask);
    }

    fn answer(&mut self, id: u64, message: &[u8]) {
        let answer = wire::ProgramAnswer { message: message.to_vec(), ..Default::default() };
        self.server.answer(id, &answer, &mut self.refused);
    }
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

const QUESTION: &[u8; 17] = b"\x12\x34\x01\x20question12345";

#[test]
fn who_asks_by_udp_is_answered() {
    let mut site = Site::new();
    let (one, other) = (client(), client());
    one.send_to(QUESTION, site.udp).unwrap();
    other.send_to(b"another question", site.udp).unwrap();
    site.serve(2);
    let (id, question) =
        site.asked.iter().find(|(_, question)| question.message == QUESTION).unwrap().clone();
    assert!(!question.stream);
    site.answer(id + 100, b"for nobody");
    site.answer(id, b"the answer");
    assert_eq!(heard(&one), b"the answer");
    // Once.
    site.answer(id, b"again");
    site.server.lose();
    assert_eq!(heard(&other).len(), b"another question".len());
    assert!(site.server.waiting.is_empty());
}

#[test]
fn a_failure_is_said_where_nobody_can_be_asked() {
    let mut site = Site::new();
    let one = client();
    one.send_to(QUESTION, site.udp).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    site.turn(false);
    assert_eq!(heard(&one), b"\x12\x34\x81\x22question12345", "its own, as an answer, SERVFAIL");
    for count in 0..=WAITING_MAX {
        one.send_to(QUESTION, site.udp).unwrap();
        if count < WAITING_MAX {
            site.serve(count + 1);
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    site.turn(true);
    assert_eq!(site.asked.len(), WAITING_MAX);
    assert_eq!(heard(&one)[2..4], [0x81, 0x22], "one more than can wait");
}

#[test]
fn what_is_too_short_or_too_long_is_no_question() {
    let mut site = Site::new();
    let one = client();
    for length in [0, HEAD_BYTES - 1, QUESTION_BYTES_MAX + 1, 4_096, HEAD_BYTES, QUESTION_BYTES_MAX] {
        one.send_to(&vec![7; length], site.udp).unwrap();
    }
    site.serve(2);
    let lengths: Vec<usize> = site.asked.iter().map(|(_, question)| question.message.len()).collect();
    assert_eq!(lengths, [HEAD_BYTES, QUESTION_BYTES_MAX]);
}

#[test]
fn who_asks_by_tcp_is_answered_one_after_the_other() {
    let mut site = Site::new();
    let mut stream = TcpStream::connect(site.tcp).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let framed = [&[0, 17][..], QUESTION].concat();
    let (first, rest) = framed.split_at(9);
    stream.write_all(first).unwrap();
    site.turn(true);
    assert!(site.asked.is_empty());
    stream.write_all(rest).unwrap();
    stream.write_all(&framed).unwrap();
    site.serve(1);
    assert!(site.asked[0].1.stream);
    std::thread::sleep(Duration::from_millis(50));
    site.turn(true);
    assert_eq!(site.asked.len(), 1, "the second waits for the first");
    site.answer(site.asked[0].0, &[8; 3_000]);
    let mut read = vec![0; 3_002];
    stream.read_exact(&mut read).unwrap();
    assert_eq!((&read[..2], read[3_001]), (&3_000_u16.to_be_bytes()[..], 8));
    site.serve(2);
    site.server.lose();
    let mut read = vec![0; 19];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read[4..6], [0x81, 0x22]);
}

#[test]
fn connections_that_say_nothing_make_room() {
    let mut site = Site::new();
    let idle: Vec<TcpStream> = (0..STREAMS_MAX).map(|_| TcpStream::connect(site.tcp).unwrap()).collect();
    for _ in 0..1_000 {
        site.turn(true);
        if site.server.streams.len() == STREAMS_MAX {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut one = TcpStream::connect(site.tcp).unwrap();
    one.write_all(&[&[0, 17][..], QUESTION].concat()).unwrap();
    site.serve(1);
    assert_eq!(site.server.streams.len(), STREAMS_MAX);
    let mut oldest = &idle[0];
    oldest.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(oldest.read(&mut [0; 1]), Ok(0) | Err(_)));
    // What is too long is not waited for.
    let mut wrong = &idle[1];
    wrong.write_all(&u16::try_from(QUESTION_BYTES_MAX + 1).unwrap().to_be_bytes()).unwrap();
    for _ in 0..1_000 {
        site.turn(true);
        if site.server.streams.len() < STREAMS_MAX {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it is still there");
}

#[test]
fn a_refusal_is_written_down_under_its_name() {
    let mut site = Site::new();
    let one = client();
    one.send_to(QUESTION, site.udp).unwrap();
    site.serve(1);
    let answer = wire::ProgramAnswer {
        errno: 13,
        refused: "not among its places".to_owned(),
        message: b"refused".to_vec(),
        name: "evil.example".to_owned(),
        ..Default::default()
    };
    site.server.answer(site.asked[0].0, &answer, &mut site.refused);
    assert_eq!(heard(&one), b"refused");
    let list = site.refused.list();
    assert_eq!(
        (list[0].call.as_str(), list[0].target.as_str(), list[0].errno),
        ("resolve", "evil.example", 13)
    );
}
