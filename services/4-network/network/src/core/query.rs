//! What a program asks for, and what it hears: the other side of the DNS.

use ::core::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, AAAA},
    },
};

use super::{
    HostName, NameError,
    dns::{Family, UDP_BYTES_MAX},
};

/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 1_024;
/// What every client takes by UDP.
const UDP_BYTES_MIN: u16 = 512;

/// A question that can be answered.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    op_code: OpCode,
    recursion_desired: bool,
    query: Query,
    /// Bytes that the program takes by UDP, if it has said so.
    payload: Option<u16>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Addresses(HostName, Family),
    /// There is nothing of this kind for any name: what is asked for beside the addresses, and waited for.
    Nothing(HostName),
    /// It is not answered here.
    Unknown,
    /// It is no name that could be allowed.
    NoName(NameError),
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    Addresses(&'a [IpAddr], Duration),
    /// There is such a name, and nothing of what was asked for.
    Nothing,
    NoSuchName,
    Refused,
    /// It could not be found out.
    Failed,
    NotImplemented,
}

impl Question {
    /// None: to what cannot be read nothing can be said.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let message = Message::from_vec(bytes.get(..bytes.len().min(QUESTION_BYTES_MAX))?).ok()?;
        let head = message.metadata;
        let [query] = message.queries.as_slice() else { return None };
        (bytes.len() <= QUESTION_BYTES_MAX && head.message_type == MessageType::Query).then(|| Self {
            id: head.id,
            op_code: head.op_code,
            recursion_desired: head.recursion_desired,
            query: query.clone(),
            payload: message.edns.as_ref().map(Edns::max_payload),
        })
    }

    #[must_use]
    pub fn asked(&self) -> Asked {
        if self.op_code != OpCode::Query || self.query.query_class != DNSClass::IN {
            return Asked::Unknown;
        }
        let name = match self.query.name.to_ascii().parse::<HostName>() {
            Ok(name) => name,
            Err(error) => return Asked::NoName(error),
        };
        match self.query.query_type {
            RecordType::A => Asked::Addresses(name, Family::V4),
            RecordType::AAAA => Asked::Addresses(name, Family::V6),
            RecordType::HTTPS | RecordType::SVCB => Asked::Nothing(name),
            _ => Asked::Unknown,
        }
    }

    /// As it was asked for, for people.
    #[must_use]
    pub fn name(&self) -> String {
        self.query.name.to_ascii()
    }

    /// The message that says so; empty if it cannot be written. `stream`: it goes by TCP.
    #[must_use]
    pub fn reply(&self, said: Said<'_>, stream: bool) -> Vec<u8> {
        let mut message = Message::response(self.id, self.op_code);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = match said {
            Said::Addresses(..) | Said::Nothing => ResponseCode::NoError,
            Said::NoSuchName => ResponseCode::NXDomain,
            Said::Refused => ResponseCode::Refused,
            Said::Failed => ResponseCode::ServFail,
            Said::NotImplemented => ResponseCode::NotImp,
        };
        message.add_query(self.query.clone());
        if let Said::Addresses(addresses, ttl) = said {
            let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
            let record = |ip: &IpAddr| {
                let data = match ip {
                    IpAddr::V4(v4) => RData::A(A(*v4)),
                    IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
                };
                Record::from_rdata(self.query.name.clone(), ttl, data)
            };
            message.add_answers(addresses.iter().map(record));
        }
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX);
            message.set_edns(edns);
        }
        let fits = self.payload.unwrap_or(0).clamp(UDP_BYTES_MIN, UDP_BYTES_MAX);
        let bytes = message.to_vec().unwrap_or_default();
        match stream || bytes.len() <= usize::from(fits) {
            true => bytes,
            false => message.truncate().to_vec().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Name;

    fn message(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii("WWW.Example.org.").unwrap(), RecordType::A));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn asked(change: impl FnOnce(&mut Message)) -> Option<Asked> {
        Question::read(&message(change)).map(|question| question.asked())
    }

    fn of(kind: RecordType) -> Option<Asked> {
        asked(|m| m.queries[0].query_type = kind)
    }

    #[test]
    fn addresses_are_asked_for_and_little_else_is_known() {
        let name = || "www.example.org".parse::<HostName>().unwrap();
        assert_eq!(of(RecordType::A), Some(Asked::Addresses(name(), Family::V4)));
        assert_eq!(of(RecordType::AAAA), Some(Asked::Addresses(name(), Family::V6)));
        assert_eq!(of(RecordType::HTTPS), Some(Asked::Nothing(name())));
        for kind in [
            RecordType::TXT,
            RecordType::MX,
            RecordType::ANY,
            RecordType::AXFR,
            RecordType::NULL,
            RecordType::PTR,
        ] {
            assert_eq!(of(kind), Some(Asked::Unknown), "{kind}");
        }
        assert_eq!(asked(|m| m.queries[0].query_class = DNSClass::CH), Some(Asked::Unknown));
        assert_eq!(asked(|m| m.metadata.op_code = OpCode::Status), Some(Asked::Unknown));
        for text in ["127.0.0.1.", "0x7f.1.", "2130706433."] {
            let said = asked(|m| m.queries[0].name = Name::from_ascii(text).unwrap());
            assert_eq!(said, Some(Asked::NoName(NameError::Address)), "{text}");
        }
        let odd = Name::from_labels([&b"a\0b"[..], &b"example"[..]]).unwrap();
        assert_eq!(asked(|m| m.queries[0].name = odd), Some(Asked::NoName(NameError::Malformed)));
        assert_eq!(asked(|m| m.queries[0].name = Name::root()), Some(Asked::NoName(NameError::Malformed)));
    }

    #[test]
    fn to_what_is_no_question_nothing_is_said() {
        assert_eq!(asked(|m| m.queries.clear()), None);
        assert_eq!(asked(|m| m.queries.extend_from_within(..)), None);
        assert_eq!(asked(|m| m.metadata.message_type = MessageType::Response), None);
        let bytes = message(|_| {});
        for length in 0..bytes.len() {
            assert!(Question::read(&bytes[..length]).is_none(), "{length}");
        }
        let padded = |length: usize| {
            let mut bytes = bytes.clone();
            bytes.resize(length, 0);
            Question::read(&bytes)
        };
        assert!(padded(QUESTION_BYTES_MAX).is_some());
        assert!(padded(QUESTION_BYTES_MAX + 1).is_none());
    }

    #[test]
    fn an_answer_is_the_questions_own() {
        let question = Question::read(&message(|_| {})).unwrap();
        let ip = IpAddr::from([192, 0, 2, 1]);
        let bytes = question.reply(Said::Addresses(&[ip], Duration::from_secs(60)), false);
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.message_type), (7, MessageType::Response));
        assert!(
            reply.metadata.recursion_desired && reply.metadata.recursion_available && reply.edns.is_none()
        );
        assert_eq!(reply.queries[0].name.to_ascii(), "WWW.Example.org.", "as it was spelled");
        assert_eq!((reply.answers[0].ttl, reply.answers[0].data.ip_addr()), (60, Some(ip)));
        for (said, code) in [
            (Said::Nothing, ResponseCode::NoError),
            (Said::NoSuchName, ResponseCode::NXDomain),
            (Said::Refused, ResponseCode::Refused),
            (Said::Failed, ResponseCode::ServFail),
            (Said::NotImplemented, ResponseCode::NotImp),
        ] {
            let reply = Message::from_vec(&question.reply(said, false)).unwrap();
            assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0));
        }
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_longer() {
        let many: Vec<IpAddr> = (0..64).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let read = |payload: Option<u16>, count: usize, stream: bool| {
            let bytes = message(|m| {
                if let Some(payload) = payload {
                    let mut edns = Edns::new();
                    edns.set_max_payload(payload);
                    m.set_edns(edns);
                }
            });
            let question = Question::read(&bytes).unwrap();
            let bytes = question.reply(Said::Addresses(&many[..count], Duration::from_secs(60)), stream);
            let reply = Message::from_vec(&bytes).unwrap();
            (reply.metadata.truncation, reply.answers.len(), bytes.len())
        };
        // 33 bytes of header and question, 16 for each address.
        assert_eq!(read(None, 29, false), (false, 29, 497));
        let (truncated, answers, length) = read(None, 30, false);
        assert!(truncated && answers == 0 && length <= 512);
        assert!(!read(Some(1_232), 64, false).0);
        assert!(!read(Some(60_000), 64, false).0);
        assert!(read(Some(1), 30, false).0, "nobody takes less than 512");
        assert_eq!(read(None, 64, true).1, 64);
    }
}
