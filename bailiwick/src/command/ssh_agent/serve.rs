//! The agent's conversations: a message, an answer; each signature is the node's.

use std::{cell::Cell, rc::Rc, time::Duration};

use anyhow::{Context, Result};
use base::{KeyPath, PublicKey, Signature};
use ssh::agent::{Identity, LENGTH_BYTES, Request, Response, length};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::{command::key, node::Node};

/// Conversations at once; one more is closed. A forwarded agent keeps one for as long as its login lasts.
const CLIENTS_MAX: usize = 64;
/// From a message's length to its last byte, and for an answer to be taken.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept, which is one of too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which keys are offered, and who makes signatures with them.
pub(super) struct Agent {
    node: Node,
    offered: Vec<(PublicKey, KeyPath)>,
    clients: Cell<usize>,
}

impl Agent {
    pub(super) const fn new(node: Node, offered: Vec<(PublicKey, KeyPath)>) -> Self {
        Self { node, offered, clients: Cell::new(0) }
    }

    /// Ends only with an error.
    pub(super) async fn serve(self, listener: std::os::unix::net::UnixListener) -> Result<()> {
        listener.set_nonblocking(true).context("the agent's socket")?;
        let listener = UnixListener::from_std(listener).context("the agent's socket")?;
        let agent = Rc::new(self);
        let own_uid = rustix::process::getuid().as_raw();
        tokio::task::LocalSet::new()
            .run_until(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    // The socket's mode says the same; whoever got round it is not served either.
                    let own = stream.peer_cred().is_ok_and(|peer| [own_uid, 0].contains(&peer.uid()));
                    if own && agent.clients.get() < CLIENTS_MAX {
                        let agent = Rc::clone(&agent);
                        agent.clients.set(agent.clients.get() + 1);
                        tokio::task::spawn_local(async move {
                            // Whatever ends a conversation ends it alone.
                            let _ = agent.converse(stream).await;
                            agent.clients.set(agent.clients.get() - 1);
                        });
                    }
                }
            })
            .await
    }

    async fn converse(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut prefix = [0; LENGTH_BYTES];
        loop {
            stream.read_exact(&mut prefix).await?;
            let Ok(bytes) = length(prefix) else { return send(&mut stream, &Response::Failure).await };
            let mut message = vec![0; bytes];
            tokio::time::timeout(MESSAGE_TIMEOUT, stream.read_exact(&mut message)).await??;
            let answer = match Request::parse(&message) {
                Ok(request) => self.answer(request).await,
                Err(_) => return send(&mut stream, &Response::Failure).await,
            };
            send(&mut stream, &answer).await?;
        }
    }

    async fn answer(&self, request: Request<'_>) -> Response {
        match request {
            Request::Identities => {
                let identity =
                    |(key, path): &(PublicKey, KeyPath)| Identity { key: *key, comment: path.to_string() };
                Response::Identities(self.offered.iter().map(identity).collect())
            }
            Request::Sign { key: Some(key), data } => match self.sign(key, data).await {
                Ok(signature) => Response::Signature(signature),
                Err(error) => {
                    // The protocol has no words for a reason; this is where they are heard.
                    eprintln!("bailiwick ssh-agent: {error:#}");
                    Response::Failure
                }
            },
            Request::Sign { key: None, .. } | Request::Other(_) => Response::Failure,
        }
    }

    async fn sign(&self, key: PublicKey, data: &[u8]) -> Result<Signature> {
        let found = self.offered.iter().find(|(offered, _)| *offered == key);
        let (_, path) = found.context("a key was asked for that is not offered")?;
        key::sign_bytes(&self.node, &path.to_string(), data).await
    }
}

async fn send(stream: &mut UnixStream, answer: &Response) -> std::io::Result<()> {
    tokio::time::timeout(MESSAGE_TIMEOUT, stream.write_all(&answer.to_bytes())).await?
}
