//! The sockets that a service accepts on: those that it was started with, and those of clients that came later.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::Arc,
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    channel::ChannelKind,
    clients::{Changes, ClientChange},
    env::{DESCRIPTORS_MAX, Listener},
    gate::Gate,
    server::accept_loop,
    service::FailStart,
};

pub(crate) struct Sockets {
    gate: Arc<Gate>,
    /// Held by each connection, so that the process can wait until the last answer was written.
    alive: mpsc::Sender<()>,
    loops: JoinSet<(String, io::Result<()>)>,
    /// Those whose clients come and go: edges, and the sockets of workloads.
    edges: HashMap<(ChannelKind, Arc<str>), Edge>,
}

struct Edge {
    /// The kernel's number of the socket: the same one may come again.
    inode: u64,
    accepting: AbortHandle,
}

impl Sockets {
    pub(crate) fn new(gate: Arc<Gate>, alive: mpsc::Sender<()>) -> Self {
        Self { gate, alive, loops: JoinSet::new(), edges: HashMap::new() }
    }

    /// Accepts on all of them until one breaks.
    pub(crate) async fn serve(&mut self, listeners: Vec<Listener>, clients: Option<OwnedFd>) -> FailStart {
        for listener in listeners {
            self.accept(listener);
        }
        let failed = |source| FailStart::Listen { name: ChannelKind::Clients.to_string(), source };
        let mut changes = match Changes::new(clients) {
            Ok(changes) => changes,
            Err(source) => return failed(source),
        };
        loop {
            tokio::select! {
                Some(ended) = self.loops.join_next() => {
                    // Others were closed because their client has gone.
                    if let Ok((name, Err(source))) = ended {
                        return FailStart::Listen { name, source };
                    }
                }
                (change, socket) = changes.next() => self.change(change, socket),
            }
        }
    }

    fn accept(&mut self, listener: Listener) {
        let (gate, alive) = (Arc::clone(&self.gate), self.alive.clone());
        let (kind, client) = (listener.kind, Arc::clone(&listener.client));
        let inode = inode(&listener.socket);
        let name = format!("{kind}:{client}");
        let accepting = self.loops.spawn(async move { (name, accept_loop(listener, gate, alive).await) });
        if matches!(kind, ChannelKind::Edge | ChannelKind::Workload)
            && let Some(before) = self.edges.insert((kind, client), Edge { inode, accepting })
        {
            before.accepting.abort();
        }
    }

    fn change(&mut self, change: ClientChange, socket: Option<UnixListener>) {
        match (change, socket) {
            (ClientChange::Only(clients), _) => self.only(ChannelKind::Edge, clients),
            (ClientChange::OnlyWorkloads(clients), _) => self.only(ChannelKind::Workload, clients),
            (ClientChange::Serve(client) | ClientChange::ServeWorkload(client), None) => {
                tracing::warn!(client, "a new client came without a listening socket");
            }
            (ClientChange::Serve(client), Some(socket)) => self.serve_new(ChannelKind::Edge, client, socket),
            (ClientChange::ServeWorkload(client), Some(socket)) => {
                self.serve_new(ChannelKind::Workload, client, socket);
            }
        }
    }

    fn only(&mut self, kind: ChannelKind, clients: Vec<String>) {
        let clients: HashSet<String> = clients.into_iter().collect();
        self.edges.retain(|(of, client), edge| {
            let stays = *of != kind || clients.contains(&**client);
            if !stays {
                tracing::info!(%client, %kind, "this client has gone");
                edge.accepting.abort();
            }
            stays
        });
    }

    fn serve_new(&mut self, kind: ChannelKind, client: String, socket: UnixListener) {
        let known = self.edges.get(&(kind, client.as_str().into()));
        if known.is_some_and(|edge| edge.inode == inode(&socket)) {
            return;
        }
        if known.is_none() && self.loops.len() >= DESCRIPTORS_MAX {
            return tracing::warn!(client, "no more than {DESCRIPTORS_MAX} sockets are served");
        }
        tracing::info!(client, %kind, "a client has come");
        self.accept(Listener::new(kind, &client, socket));
    }

    pub(crate) async fn close(mut self) {
        self.loops.abort_all();
        while self.loops.join_next().await.is_some() {}
    }
}

/// Zero, which no socket has, if the kernel does not tell.
fn inode(socket: &UnixListener) -> u64 {
    rustix::fs::fstat(socket.as_fd()).map_or(0, |status| status.st_ino)
}
