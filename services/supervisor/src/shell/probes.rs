//! Health of foreign programs: a connection, a request, a command. Each probe is a task with a time limit.
//!
//! An address is meant as the program sees it. With the host's network the supervisor connects itself; with a network
//! of its own a thread enters it for the time of the probe, which needs privileges over it: a rootless node refuses
//! such a probe with the reason instead of connecting elsewhere.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Bytes of an answer that are read: the status line is all that counts.
const ANSWER_BYTES_MAX: usize = 64;
/// Stack of the thread that enters a network.
const STACK_BYTES: usize = 128 * 1024;

/// What is asked, over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Connect { address: String },
    Http { address: String, path: String },
}

/// Where the address is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Host,
    /// The one of this process.
    Of(u32),
}

/// Runs in a thread of its own, because entering a network changes the thread.
pub(super) async fn ask(question: Question, network: Network, timeout: Duration) -> Result<(), String> {
    let (answer, waiting) = tokio::sync::oneshot::channel();
    let thread =
        std::thread::Builder::new().name("probe".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            let _ = answer.send(enter(network).and_then(|()| put(&question, timeout)));
        });
    thread.map_err(|error| format!("no thread for the probe: {error}"))?;
    match tokio::time::timeout(timeout, waiting).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("the probe ended without an answer".to_owned()),
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

fn enter(network: Network) -> Result<(), String> {
    let Network::Of(pid) = network else { return Ok(()) };
    let file = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| format!("its network: {error}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| {
        format!("entering its network needs privileges ({error}); use kind exec, sd_notify or process, or network = \"host\"")
    })
}

fn put(question: &Question, timeout: Duration) -> Result<(), String> {
    let (Question::Connect { address } | Question::Http { address, .. }) = question;
    let mut stream = connect(address, timeout)?;
    let Question::Http { path, .. } = question else { return Ok(()) };
    let failed = |error: std::io::Error| format!("asking {address}: {error}");
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
    stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).map_err(failed)?;
    judge(&answer)
}

fn connect(address: &str, timeout: Duration) -> Result<TcpStream, String> {
    let until = Instant::now() + timeout;
    let all = address.to_socket_addrs().map_err(|error| format!("looking up {address}: {error}"))?;
    let mut last = format!("{address} names no address");
    for one in all {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&one, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("connecting to {one}: {error}"),
        }
    }
    Err(last)
}

/// 200 to 399 is healthy.
fn judge(answer: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("answered with status {status}")),
        None => Err("answered with something that is not HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// covers: SUP-71
    #[test]
    fn a_status_of_200_to_399_is_healthy() {
        for (answer, healthy) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 399 x\r\n", true),
            ("HTTP/1.1 400 Bad\r\n", false),
            ("HTTP/1.1 199 x\r\n", false),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            assert_eq!(judge(answer.as_bytes()).is_ok(), healthy, "{answer:?}");
        }
    }

    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 512];
            let _ = stream.read(&mut buffer).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[tokio::test]
    async fn connections_and_requests_are_tried_and_bounded() {
        let limit = Duration::from_secs(5);
        let http = |address: String| Question::Http { address, path: "/ok".to_owned() };
        ask(http(serve("HTTP/1.1 204 No Content\r\n\r\n")), Network::Host, limit).await.unwrap();
        let bad = ask(http(serve("HTTP/1.1 503 Busy\r\n\r\n")), Network::Host, limit).await;
        assert_eq!(bad, Err("answered with status 503".to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        ask(Question::Connect { address: address.clone() }, Network::Host, limit).await.unwrap();
        let short = Duration::from_millis(100);
        let silent = ask(http(address.clone()), Network::Host, short).await;
        assert!(silent.is_err(), "accepts and never answers");
        drop(listener);
        assert!(ask(Question::Connect { address }, Network::Host, limit).await.is_err());
    }

    #[tokio::test]
    async fn a_network_that_cannot_be_entered_is_no_success() {
        let question = Question::Connect { address: "127.0.0.1:1".to_owned() };
        assert!(ask(question, Network::Of(u32::MAX), Duration::from_secs(1)).await.is_err());
    }
}
