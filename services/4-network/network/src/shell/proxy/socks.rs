//! SOCKS5: whom it wants, and then a tunnel.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Proxied;
use crate::core::{
    CallError,
    limits::FIRST_BYTES_TIMEOUT,
    proxied::tunnel_to,
    socks::{Reply, Step, greeting, request},
};

/// More than the longest request.
const READ_BYTES: usize = 512;

fn reply_to(error: &CallError) -> Reply {
    match error {
        CallError::PolicyDenied(_) => Reply::NotAllowed,
        CallError::Dns(_) => Reply::HostUnreachable,
        CallError::ConnectionFailed(_) => Reply::ConnectionRefused,
        CallError::Timeout(_) => Reply::TimedOut,
        CallError::InvalidUrl(_) => Reply::NoSuchAddress,
        CallError::RateLimitExceeded(_) | CallError::Other(_) => Reply::Failed,
    }
}

/// What comes next; none if it ended, or cannot be read and has been told so.
async fn next<T>(stream: &mut TcpStream, heard: &mut Vec<u8>, read: impl Fn(&[u8]) -> Step<T>) -> Option<T> {
    loop {
        match read(heard) {
            Step::Done(said, taken) => {
                heard.drain(..taken);
                return Some(said);
            }
            Step::Refused(answer) => {
                let _ = stream.write_all(&answer).await;
                return None;
            }
            Step::More => {}
        }
        let mut buffer = [0; READ_BYTES];
        match stream.read(&mut buffer).await {
            Ok(bytes @ 1..) => heard.extend_from_slice(buffer.get(..bytes).unwrap_or_default()),
            _ => return None,
        }
    }
}

impl Proxied {
    pub(super) async fn socks(&self, mut stream: TcpStream) {
        let mut heard = Vec::new();
        let reading = async {
            let answer = next(&mut stream, &mut heard, greeting).await?;
            stream.write_all(&answer).await.ok()?;
            next(&mut stream, &mut heard, request).await
        };
        let Ok(Some((host, port))) = timeout(FIRST_BYTES_TIMEOUT, reading).await else { return };
        let opened = match tunnel_to(&host, port) {
            Ok(target) => match self.judge(&target) {
                Ok(user) => self.open(user, &target, None).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => {
                // Who does not take the answer has no connection that nobody cuts.
                let done = Reply::Done.bytes();
                if matches!(timeout(FIRST_BYTES_TIMEOUT, stream.write_all(&done)).await, Ok(Ok(()))) {
                    opened.carry(stream, heard).await;
                }
            }
            Err(error) => {
                self.tell(&format!("{host}:{port}"), &error);
                let _ = stream.write_all(&reply_to(&error).bytes()).await;
            }
        }
    }
}
