//! Any bytes as what a program says to its proxy.
//!
//! Strategy: the first byte chooses. 0: the rest is a greeting of SOCKS5 with a request behind it. 1: the rest is a request of HTTP, one part a line:
//! method, URL, and the values of `Host`.
//! Invariants: a beginning asks for more, or is refused as the whole is; what is taken is there; whoever is asked for has one spelling, which is read as itself
//! again, and is nobody but whom the request names; why not is one line.

use hyper::Request;
use network::core::{
    Schemes, Target,
    proxied::{asked, tunnel_to},
    socks::{Step, greeting, request},
};

/// Longer than any request of SOCKS5: all that comes before the port is counted by one byte.
const SOCKS_BYTES_MAX: usize = 4 + 1 + 255 + 2;

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((0, said)) => socks(said),
        Some((1, said)) => http(said),
        _ => false,
    }
}

/// What a beginning is read as, if it is not only waited for, is what the whole is read as.
fn step<T: PartialEq + std::fmt::Debug>(bytes: &[u8], read: fn(&[u8]) -> Step<T>) -> Step<T> {
    let whole = read(bytes);
    for length in 0..bytes.len().min(SOCKS_BYTES_MAX) {
        match read(bytes.get(..length).unwrap_or_default()) {
            Step::More => {}
            part => {
                assert_eq!(part, whole, "at {length}");
                break;
            }
        }
    }
    if let Step::Done(_, taken) = &whole {
        assert!(*taken <= bytes.len());
    }
    assert!(whole != Step::More || bytes.len() < SOCKS_BYTES_MAX);
    whole
}

fn socks(said: &[u8]) -> bool {
    let Step::Done(_, taken) = step(said, greeting) else { return false };
    let Step::Done((host, port), _) = step(said.get(taken..).unwrap_or_default(), request) else {
        return false;
    };
    match tunnel_to(&host, port) {
        Ok(target) => {
            assert_eq!(target.port(), port);
            reads_as_itself(&target);
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}

fn http(said: &[u8]) -> bool {
    let mut lines = said.split(|byte| *byte == b'\n');
    let (Some(method), Some(url)) = (lines.next(), lines.next()) else { return false };
    let mut building = Request::builder().method(method).uri(url);
    let hosts: Vec<&[u8]> = lines.collect();
    for host in &hosts {
        building = building.header("host", *host);
    }
    // What is no request is hyper's to refuse.
    let Ok(request) = building.body(()) else { return false };
    match asked(&request) {
        Ok(target) => {
            assert!(hosts.len() <= 1 && (method == b"CONNECT" || hosts.len() == 1));
            let named = request.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
            let named = named.rsplit_once('@').map_or(named, |(_, host)| host).to_ascii_lowercase();
            let host = target.host().trim_matches(['[', ']']);
            // Of a name in another script, or with an end, the URL's reader made one spelling.
            let is_plain = named.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
            assert!(!is_plain || target.address().is_some() || named.contains(host), "{named}: {host}");
            reads_as_itself(&target);
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}

fn reads_as_itself(target: &Target) {
    let again = Target::parse(target.as_str(), Schemes::Http);
    assert!(again.is_ok_and(|again| again.as_str() == target.as_str()), "{}", target.as_str());
}
