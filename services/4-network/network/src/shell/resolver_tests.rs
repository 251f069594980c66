use std::{collections::VecDeque, sync::Mutex, time::Instant};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};

use super::*;

/// A server of the test's own: what it says to each question, in turn; the last for ever.
struct Server {
    place: SocketAddr,
    asked: Arc<Mutex<Vec<(Message, SocketAddr)>>>,
}

type Say = fn(&Message) -> Vec<Vec<u8>>;

impl Server {
    async fn new(says: &[Say], by_tcp: Say) -> Self {
        // A number that is free by UDP can be somebody's by TCP, on a machine with many connections.
        let (udp, tcp, place) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let place = udp.local_addr().unwrap();
            if let Ok(tcp) = tokio::net::TcpListener::bind(place).await {
                break (udp, tcp, place);
            }
        };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut says) = (Arc::clone(&asked), VecDeque::from(says.to_vec()));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let say = if says.len() > 1 { says.pop_front().unwrap() } else { says[0] };
                for bytes in say(&question) {
                    udp.send_to(&bytes, from).await.unwrap();
                }
                seen.lock().unwrap().push((question, from));
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut bytes).await.unwrap();
                for bytes in by_tcp(&Message::from_vec(&bytes).unwrap()) {
                    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                }
            }
        });
        Self { place, asked }
    }

    async fn of(say: Say) -> Self {
        Self::new(&[say], silent).await
    }

    fn resolver(&self) -> Arc<Resolver> {
        Resolver::new(Settings { nameservers: vec![self.place], ..Settings::default() })
    }

    fn asked(&self) -> Vec<(Message, SocketAddr)> {
        self.asked.lock().unwrap().clone()
    }
}

fn silent(_: &Message) -> Vec<Vec<u8>> {
    Vec::new()
}

fn reply(question: &Message, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.add_queries(question.queries.clone());
    change(&mut message);
    message.to_vec().unwrap()
}

fn address(message: &mut Message, last: u8) {
    let name = message.queries[0].name.clone();
    if message.queries[0].query_type == RecordType::A {
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, last))));
    }
}

fn good(question: &Message) -> Vec<Vec<u8>> {
    vec![reply(question, |m| address(m, 1))]
}

fn truncated(question: &Message) -> Vec<Vec<u8>> {
    vec![reply(question, |m| m.metadata.truncation = true)]
}

fn failed(question: &Message) -> Vec<Vec<u8>> {
    vec![reply(question, |m| m.metadata.response_code = ResponseCode::ServFail)]
}

fn absent(question: &Message) -> Vec<Vec<u8>> {
    vec![reply(question, |m| m.metadata.response_code = ResponseCode::NXDomain)]
}

/// Rubbish, a wrong number and another question, each with an address, before the answer.
fn lying(question: &Message) -> Vec<Vec<u8>> {
    let number = reply(question, |m| {
        m.metadata.id = m.metadata.id.wrapping_add(1);
        address(m, 66);
    });
    let other = reply(question, |m| {
        m.queries[0].name = Name::from_ascii("evil.example.").unwrap();
        address(m, 67);
    });
    [vec![b"rubbish".to_vec(), number, other], good(question)].concat()
}

fn only_lies(question: &Message) -> Vec<Vec<u8>> {
    lying(question).into_iter().take(3).collect()
}

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn one(last: u8) -> Answer {
    Answer { addresses: vec![IpAddr::from([192, 0, 2, last])], ttl: Duration::from_secs(60) }
}

#[tokio::test]
async fn a_name_is_asked_for_in_both_families_with_numbers_and_ports_of_their_own() {
    let server = Server::of(good).await;
    let resolver = server.resolver();
    assert_eq!(resolver.resolve(&name("www.example.org")).await.unwrap(), one(1));
    for _ in 0..8 {
        resolver.lookup(&name("www.example.org"), Family::V4).await.unwrap();
    }
    let asked = server.asked();
    let mut kinds: Vec<_> = asked.iter().take(2).map(|(m, _)| m.queries[0].query_type).collect();
    kinds.sort();
    assert_eq!(kinds, [RecordType::A, RecordType::AAAA]);
    let distinct = |of: &dyn Fn(&(Message, SocketAddr)) -> u16| {
        asked.iter().map(of).collect::<std::collections::HashSet<_>>().len()
    };
    assert!(distinct(&|(m, _)| m.metadata.id) > 5, "{asked:?}");
    assert!(distinct(&|(_, from)| from.port()) > 5, "{asked:?}");
}

#[tokio::test]
async fn what_was_not_asked_for_is_dropped_and_counted() {
    let server = Server::of(lying).await;
    let resolver = server.resolver();
    assert_eq!(resolver.lookup(&name("www.example.org"), Family::V4).await.unwrap(), one(1));
    assert_eq!(resolver.disbelieved(), 3);
    let server = Server::of(only_lies).await;
    let resolver = server.resolver();
    let error = resolver.lookup(&name("www.example.org"), Family::V4).await.unwrap_err();
    assert!(matches!(error, ResolveError::Failed(..)), "{error}");
}

#[tokio::test]
async fn what_does_not_fit_is_asked_for_by_tcp() {
    let server = Server::new(&[truncated], good).await;
    assert_eq!(server.resolver().lookup(&name("www.example.org"), Family::V4).await.unwrap(), one(1));
    let server = Server::new(&[truncated], truncated).await;
    assert!(server.resolver().lookup(&name("www.example.org"), Family::V4).await.is_err());
    let server = Server::new(&[truncated], |_| vec![vec![0; dns::TCP_BYTES_MAX + 1]]).await;
    let error = server.resolver().lookup(&name("www.example.org"), Family::V4).await.unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again_and_another_in_its_place() {
    let server = Server::new(&[failed, good], silent).await;
    assert_eq!(server.resolver().lookup(&name("www.example.org"), Family::V4).await.unwrap(), one(1));
    let (broken, works) = (Server::of(failed).await, Server::of(good).await);
    let resolver =
        Resolver::new(Settings { nameservers: vec![broken.place, works.place], ..Settings::default() });
    assert_eq!(resolver.lookup(&name("www.example.org"), Family::V4).await.unwrap(), one(1));
    assert_eq!((broken.asked().len(), works.asked().len()), (1, 1));
    let error = broken.resolver().lookup(&name("www.example.org"), Family::V4).await.unwrap_err();
    assert!(error.to_string().contains("says"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_has_its_time() {
    let server = Server::new(&[silent, good], silent).await;
    let since = Instant::now();
    assert_eq!(server.resolver().lookup(&name("www.example.org"), Family::V4).await.unwrap(), one(1));
    assert!(since.elapsed() >= PATIENCE);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_from_one_without_addresses() {
    let server = Server::of(absent).await;
    let error = server.resolver().resolve(&name("www.example.org")).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoSuchName(_)), "{error}");
    assert_eq!(server.asked().len(), 2, "it is asked once for each family");
    let server = Server::of(good).await;
    let empty = server.resolver().lookup(&name("www.example.org"), Family::V6).await.unwrap();
    assert!(empty.addresses.is_empty());
}

#[tokio::test]
async fn no_more_are_asked_for_at_once_than_there_are_places() {
    let server = Server::of(good).await;
    let resolver = server.resolver();
    let places = resolver.places.acquire_many(u32::try_from(QUESTIONS_MAX).unwrap() - 1).await.unwrap();
    assert!(resolver.lookup(&name("www.example.org"), Family::V4).await.is_ok());
    let last = resolver.places.acquire().await.unwrap();
    let error = resolver.lookup(&name("www.example.org"), Family::V4).await.unwrap_err();
    assert!(matches!(error, ResolveError::Busy), "{error}");
    drop((places, last));
}
