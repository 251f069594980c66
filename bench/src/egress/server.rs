//! The other end, on the host: takes bytes, or gives one; or answers HTTP, a page of so many mebibytes as its path says.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};

/// As many connections are served at once: more than any row opens, with those that proxies keep.
const THREADS: usize = 128;
const PIECE_BYTES: usize = 256 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Ends with the bench.
pub(super) struct Server {
    port: u16,
}

impl Server {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("listening")?;
        let port = listener.local_addr().context("the port of a listener")?.port();
        let listener = Arc::new(listener);
        for _ in 0..THREADS {
            let listener = Arc::clone(&listener);
            let serve = move || {
                for connection in listener.incoming().flatten() {
                    // Of a connection that breaks its client tells.
                    let _ = answer(connection);
                }
            };
            thread::Builder::new().spawn(serve).context("starting a thread")?;
        }
        Ok(Self { port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

fn answer(mut connection: TcpStream) -> io::Result<()> {
    let mut wish = [0];
    connection.read_exact(&mut wish)?;
    if wish == *b"G" {
        return pages(connection);
    }
    if wish == *b"t" {
        let mut piece = vec![0; PIECE_BYTES];
        while connection.read(&mut piece)? > 0 {}
    }
    connection.write_all(b"x")
}

/// One after the other, until its client has enough.
fn pages(mut connection: TcpStream) -> io::Result<()> {
    // What is said in pieces would wait for the other side to say that it has heard: 40 ms, for whoever keeps connections.
    connection.set_nodelay(true)?;
    let mut asked = BufReader::new(connection.try_clone()?);
    let piece = vec![b'x'; PIECE_BYTES];
    let (mut head, mut byte) = (b"G".to_vec(), [0]);
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > HEAD_BYTES_MAX || asked.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.extend(byte);
        }
        let text = String::from_utf8_lossy(&head);
        let path = text.split_whitespace().nth(1).and_then(|target| target.rsplit('/').next());
        let mebibytes: usize = path.and_then(|path| path.parse().ok()).unwrap_or(0);
        let length = if mebibytes == 0 { 1 } else { mebibytes * 1024 * 1024 };
        let mut said =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
        // A small page is one packet.
        let mut left = length;
        if left == 1 {
            said.push('x');
            left = 0;
        }
        connection.write_all(said.as_bytes())?;
        while left > 0 {
            let part = piece.get(..left.min(PIECE_BYTES)).unwrap_or_default();
            connection.write_all(part)?;
            left -= part.len();
        }
        head.clear();
    }
}
