//! The other end, on the host: takes bytes, or gives one.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};

/// As many connections are served at once: more than any row opens.
const THREADS: usize = 24;
const PIECE_BYTES: usize = 256 * 1024;

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
    if wish == *b"t" {
        let mut piece = vec![0; PIECE_BYTES];
        while connection.read(&mut piece)? > 0 {}
    }
    connection.write_all(b"x")
}
