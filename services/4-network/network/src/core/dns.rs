//! Messages of the DNS: the question that this node asks, and what of an answer is believed.

use ::core::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use thiserror::Error;

use super::names::HostName;

/// Names that one answer may lead through, one after the other.
pub const CHAIN_MAX: usize = 8;
/// Addresses of one answer that are taken; the rest is not looked at.
pub const ADDRESSES_MAX: usize = 64;
/// Bytes of an answer by UDP that are asked for: what passes everywhere in one piece.
pub const UDP_BYTES_MAX: u16 = 1_232;
/// Bytes of an answer by TCP.
pub const TCP_BYTES_MAX: usize = 16 * 1024;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[must_use]
    pub const fn record(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

/// What a server said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// None: there is the name, and no address of this kind.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// There is no such name.
    Nothing,
    /// The rest did not fit: ask by TCP.
    Truncated,
    /// The server does not know or does not say.
    Failed(ResponseCode),
}

/// Why an answer is not believed. Somebody may have sent it who was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Disbelief {
    #[error("it is no message of the DNS")]
    Malformed,
    #[error("it answers something else than was asked")]
    Foreign,
    #[error("it leads through more than {CHAIN_MAX} names")]
    Chain,
}

/// The question, ready to be sent.
pub fn question(name: &HostName, family: Family, id: u16) -> Result<Vec<u8>, Disbelief> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(wire_name(name)?, family.record()));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX);
    message.set_edns(edns);
    message.to_vec().map_err(|_| Disbelief::Malformed)
}

/// As the wire has it: absolute.
pub fn wire_name(name: &HostName) -> Result<Name, Disbelief> {
    Name::from_ascii(format!("{name}.")).map_err(|_| Disbelief::Malformed)
}

/// What a message says to this question; only what leads from the name that was asked for to an address is taken from it.
pub fn answer(bytes: &[u8], name: &HostName, family: Family, id: u16) -> Result<Found, Disbelief> {
    let message = Message::from_vec(bytes).map_err(|_| Disbelief::Malformed)?;
    let asked = wire_name(name)?;
    let head = &message.metadata;
    let [question] = message.queries.as_slice() else { return Err(Disbelief::Foreign) };
    let is_ours = head.id == id
        && head.message_type == MessageType::Response
        && head.op_code == OpCode::Query
        && question.query_class == DNSClass::IN
        && question.query_type == family.record()
        && question.name == asked;
    if !is_ours {
        return Err(Disbelief::Foreign);
    }
    match head.response_code {
        ResponseCode::NoError if head.truncation => return Ok(Found::Truncated),
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Ok(Found::Nothing),
        other => return Ok(Found::Failed(other)),
    }
    let mut ttl = u32::MAX;
    let mut at = asked;
    for _ in 0..=CHAIN_MAX {
        let here =
            || message.answers.iter().filter(|record| record.name == at && record.dns_class == DNSClass::IN);
        let mut addresses = Vec::new();
        for record in here().filter(|record| record.record_type() == family.record()) {
            let ip = match &record.data {
                RData::A(a) => IpAddr::V4(a.0),
                RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
                _ => continue,
            };
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
                addresses.push(ip);
                ttl = ttl.min(record.ttl);
            }
        }
        let next = here().find_map(|record| match &record.data {
            RData::CNAME(to) => Some((to.0.clone(), record.ttl)),
            _ => None,
        });
        match next {
            Some((to, lives)) if addresses.is_empty() => (at, ttl) = (to, ttl.min(lives)),
            _ => {
                let ttl = if addresses.is_empty() { 0 } else { ttl };
                return Ok(Found::Addresses { addresses, ttl: Duration::from_secs(ttl.into()) });
            }
        }
    }
    Err(Disbelief::Chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{
        Record,
        rdata::{A, AAAA, CNAME},
    };

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    fn wire(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(of: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(wire(of), ttl, RData::A(A::new(192, 0, 2, last)))
    }

    fn cname(of: &str, ttl: u32, to: &str) -> Record {
        Record::from_rdata(wire(of), ttl, RData::CNAME(CNAME(wire(to))))
    }

    fn reply(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(Query::query(wire("www.example.org."), RecordType::A));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn read(change: impl FnOnce(&mut Message)) -> Result<Found, Disbelief> {
        answer(&reply(change), &name("www.example.org"), Family::V4, 7)
    }

    fn addresses(last: &[u8], ttl: u64) -> Result<Found, Disbelief> {
        let addresses = last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
        Ok(Found::Addresses { addresses, ttl: Duration::from_secs(ttl) })
    }

    #[test]
    fn a_question_is_one_name_with_its_number() {
        let bytes = question(&name("Example.org"), Family::V6, 513).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!((message.metadata.id, message.metadata.recursion_desired), (513, true));
        assert_eq!(message.queries, [Query::query(wire("example.org."), RecordType::AAAA)]);
        assert_eq!(message.max_payload(), UDP_BYTES_MAX);
    }

    #[test]
    fn addresses_are_taken_with_the_shortest_of_their_lives() {
        let said = read(|m| {
            m.add_answers([
                a("WWW.example.org.", 300, 1),
                a("www.example.org.", 60, 2),
                a("www.example.org.", 9, 2),
            ]);
        });
        assert_eq!(said, addresses(&[1, 2], 60));
        let said = read(|m| {
            m.add_answers([
                a("b.test.", 300, 1),
                cname("www.example.org.", 20, "a.test."),
                cname("a.test.", 90, "b.test."),
            ]);
        });
        assert_eq!(said, addresses(&[1], 20));
        assert_eq!(read(|_| {}), addresses(&[], 0));
        let v6 = Record::from_rdata(
            wire("www.example.org."),
            1,
            RData::AAAA(AAAA::new(0x2001, 0, 0, 0, 0, 0, 0, 1)),
        );
        assert_eq!(read(|m| m.answers.push(v6)), addresses(&[], 0), "of the kind that was asked for");
    }

    #[test]
    fn what_does_not_lead_from_the_name_is_not_taken() {
        let said = read(|m| {
            m.add_answers([a("other.example.org.", 300, 66), a("www.example.org.", 300, 1)]);
            m.add_additional(a("www.example.org.", 300, 67));
            m.add_authority(a("www.example.org.", 300, 68));
        });
        assert_eq!(said, addresses(&[1], 300));
        let mut chaos = a("www.example.org.", 300, 66);
        chaos.dns_class = DNSClass::CH;
        assert_eq!(read(|m| m.answers.push(chaos)), addresses(&[], 0));
    }

    #[test]
    fn who_answers_something_else_is_not_believed() {
        let good = |m: &mut Message| m.answers.push(a("www.example.org.", 300, 1));
        assert!(read(good).is_ok());
        let said = |change: &dyn Fn(&mut Message)| {
            read(|m| {
                good(m);
                change(m);
            })
        };
        assert_eq!(said(&|m| m.metadata.id = 8), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.metadata.message_type = MessageType::Query), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.metadata.op_code = OpCode::Status), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.queries[0].name = wire("evil.example.")), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.queries[0].query_type = RecordType::AAAA), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.queries[0].query_class = DNSClass::CH), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.queries.clear()), Err(Disbelief::Foreign));
        assert_eq!(said(&|m| m.queries.extend_from_within(..)), Err(Disbelief::Foreign));
        let bytes = reply(good);
        for length in 0..bytes.len() {
            let cut = answer(&bytes[..length], &name("www.example.org"), Family::V4, 7);
            assert_eq!(cut, Err(Disbelief::Malformed), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn what_a_server_says_instead_is_told() {
        let code = |code| read(|m| m.metadata.response_code = code);
        assert_eq!(code(ResponseCode::NXDomain), Ok(Found::Nothing));
        assert_eq!(code(ResponseCode::ServFail), Ok(Found::Failed(ResponseCode::ServFail)));
        assert_eq!(code(ResponseCode::Refused), Ok(Found::Failed(ResponseCode::Refused)));
        assert_eq!(read(|m| m.metadata.truncation = true), Ok(Found::Truncated));
    }

    #[test]
    fn a_chain_has_an_end() {
        let chain = |links: usize| {
            read(|m| {
                let of =
                    |at: usize| if at == 0 { "www.example.org.".to_owned() } else { format!("n{at}.test.") };
                m.add_answers((0..links).map(|at| cname(&of(at), 30, &of(at + 1))));
                m.add_answer(a(&of(links), 40, 1));
            })
        };
        assert_eq!(chain(CHAIN_MAX), addresses(&[1], 30));
        assert_eq!(chain(CHAIN_MAX + 1), Err(Disbelief::Chain));
        let said = read(|m| m.answers.push(cname("www.example.org.", 1, "www.example.org.")));
        assert_eq!(said, Err(Disbelief::Chain));
    }

    #[test]
    fn no_more_addresses_are_taken_than_fit() {
        let of = |count: usize| {
            read(|m| {
                let last = |at: usize| u8::try_from(at).unwrap();
                m.add_answers((0..count).map(|at| a("www.example.org.", 1, last(at))));
            })
        };
        for count in [ADDRESSES_MAX, ADDRESSES_MAX + 1] {
            let Ok(Found::Addresses { addresses, .. }) = of(count) else { panic!("{count}") };
            assert_eq!(addresses.len(), ADDRESSES_MAX);
        }
    }
}
