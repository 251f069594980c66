//! Any bytes as what a server answers, and as what a program asks.
//!
//! Strategy: the first byte chooses. 0: the rest is an answer to a question about `www.example.org`. 1: the rest is a question.
//! Invariants: of an answer only addresses of the kind that was asked for are taken, each once and no more than fit, and
//! nothing is taken that has another number; a question that is understood has a name in one spelling, and what is said to
//! it is read as its answer, by UDP within what its client takes.

use std::{net::IpAddr, time::Duration};

use network::core::{
    HostName,
    dns::{ADDRESSES_MAX, Family, Found, TCP_BYTES_MAX, UDP_BYTES_MAX, answer},
    query::{Asked, Question, Said},
};

/// What was asked for, and under which number.
pub const NAME: &str = "www.example.org";
pub const NUMBER: u16 = 7;

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((0, message)) => answered(message),
        Some((1, message)) => asked(message),
        _ => false,
    }
}

fn answered(message: &[u8]) -> bool {
    let Ok(name) = NAME.parse::<HostName>() else { return false };
    let is_any = [Family::V4, Family::V6].into_iter().filter(|family| {
        assert!(answer(message, &name, *family, NUMBER ^ 1).is_err() || message.get(..2) == Some(&[0, 6]));
        match answer(message, &name, *family, NUMBER) {
            Ok(Found::Addresses { addresses, ttl }) => {
                assert!(addresses.len() <= ADDRESSES_MAX && ttl <= Duration::from_secs(u32::MAX.into()));
                assert!(addresses.iter().all(|ip| ip.is_ipv4() == (*family == Family::V4)));
                let mut once: Vec<&IpAddr> = addresses.iter().collect();
                once.sort();
                once.dedup();
                assert_eq!(once.len(), addresses.len());
                true
            }
            Ok(_) => true,
            Err(error) => {
                super::check::one_line(&error);
                false
            }
        }
    });
    is_any.count() > 0
}

fn asked(message: &[u8]) -> bool {
    let Some(question) = Question::read(message) else { return false };
    let addresses: Vec<IpAddr> = (0..64).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    let said = Said::Addresses(&addresses, Duration::from_secs(60));
    let (udp, tcp) = (question.reply(said, false), question.reply(said, true));
    assert!(udp.len() <= usize::from(UDP_BYTES_MAX) && tcp.len() <= TCP_BYTES_MAX);
    if let Asked::Addresses(name, family) = question.asked() {
        let again = name.as_str().parse::<HostName>();
        assert_eq!(again.as_ref(), Ok(&name));
        let number = message.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
        let heard = answer(&tcp, &name, family, number);
        assert!(matches!(heard, Ok(Found::Addresses { .. })), "{name}: {heard:?}");
    }
    true
}
