//! The service's process: contract in front, the kernel's sockets behind.

mod authorize;
mod calls;
mod carriers;
mod contract;
mod datagram_flow;
mod datagrams;
mod error;
mod flows;
mod interfaces;
mod live;
mod names;
mod open;
mod opening;
mod options;
mod program;
mod program_connect;
mod program_socket;
mod program_wire;
mod programs;
mod proxy;
mod published;
mod pump;
mod registry;
mod relay;
mod resolver;
mod transfer;

use std::{
    collections::{HashMap, HashSet},
    process::ExitCode,
    sync::{Arc, Mutex},
};

use base::{AxiomRef, limits::MESSAGE_BYTES_MAX};
use chain::payload::{
    Payload,
    identity::{IdentityChange, IdentityStatus},
};
use contracts::{network::v1::network_server::NetworkServer, way_out::GREETING};
use kit::{
    BoxError, Caller, Callers, ChannelKind, Component, Cost, FeedEntry, FeedPlan, InitContext, Node,
    Operation, Right, Service,
};
use minicbor::{Decode, Encode};
use tokio::{net::UnixStream, sync::Semaphore};
use tonic::service::Routes;

use calls::Calls;
use carriers::Carriers;
use flows::Kernel;
use interfaces::Interfaces;
use program::Program;
use registry::Registry;
use resolver::Resolver;

use crate::core::{
    CallFold, Expected, FOLD_VERSION, Rules,
    limits::{
        CONNECTS_MAX, DATAGRAM_SOCKETS_MAX, PROXIED_MAX, PROXY_KEPT_MAX, RELAYS_MAX, WAITING_BYTES_MAX,
    },
    nameservers::Programs,
};

/// Becomes the process `network`.
#[must_use]
pub fn main() -> ExitCode {
    flows::adopt();
    kit::serve::<Network>()
}

const fn acts(path: &'static str, capability: &'static str) -> Operation {
    Operation::acts(path, Cost::Medium, capability)
}

static TABLE: [Operation; 22] = [
    // A socket that goes nowhere changes nothing for anybody.
    Operation::reads("/bailiwick.network.v1.Network/Socket", Cost::Light, "system.network.socket")
        .right(Right::Write),
    // Of a datagram socket this is decided, like Listen.
    acts("/bailiwick.network.v1.Network/Bind", "system.network.bind"),
    acts("/bailiwick.network.v1.Network/Listen", "system.network.listen"),
    acts("/bailiwick.network.v1.Network/Accept", "system.network.accept").long(),
    acts("/bailiwick.network.v1.Network/Connect", "system.network.connect").long(),
    // On what was authorised when it was opened; each use looks whether it still is.
    Operation::reads("/bailiwick.network.v1.Network/Send", Cost::Light, "system.network.send")
        .right(Right::Write)
        .long(),
    Operation::reads("/bailiwick.network.v1.Network/Recv", Cost::Light, "system.network.recv").long(),
    Operation::reads("/bailiwick.network.v1.Network/Close", Cost::Light, "system.network.close")
        .right(Right::Write),
    acts("/bailiwick.network.v1.Network/SendTo", "system.network.send_to"),
    Operation::reads("/bailiwick.network.v1.Network/RecvFrom", Cost::Light, "system.network.recv_from")
        .long(),
    Operation::reads("/bailiwick.network.v1.Network/GetOption", Cost::Light, "system.network.get_option"),
    Operation::reads("/bailiwick.network.v1.Network/SetOption", Cost::Light, "system.network.set_option")
        .right(Right::Write),
    Operation::reads("/bailiwick.network.v1.Network/List", Cost::Light, "system.network.list"),
    acts("/bailiwick.network.v1.Network/Revoke", "system.network.revoke"),
    acts("/bailiwick.network.v1.Network/Fetch", "system.network.fetch").long(),
    acts("/bailiwick.network.v1.Network/FetchUpload", "system.network.fetch").long(),
    acts("/bailiwick.network.v1.Network/WebSocketOpen", "system.network.web_socket").long(),
    // On what was authorised when it was opened.
    Operation::reads("/bailiwick.network.v1.Network/WebSocketSend", Cost::Light, "system.network.web_socket")
        .right(Right::Write)
        .long(),
    Operation::reads(
        "/bailiwick.network.v1.Network/WebSocketClose",
        Cost::Light,
        "system.network.web_socket",
    )
    .right(Right::Write)
    .long(),
    // Leads nowhere by itself: what is done with an address is decided when it is.
    Operation::reads("/bailiwick.network.v1.Network/Resolve", Cost::Light, "system.network.resolve")
        .right(Right::Write)
        .long(),
    Operation::reads("/bailiwick.network.v1.Network/PolicyQuery", Cost::Light, "system.network.policy_query"),
    acts("/bailiwick.network.v1.Network/PolicyUpdate", "system.network.policy_update")
        .callers(Callers::Admin),
];

/// What takes connections away: ends of services, revocations, rules, identities. Beside them which type a service is of,
/// and the policy by URL.
const FOLDED_TYPES: [u32; 8] = [20, 22, 23, 61, 62, 86, 87, 89];

/// What this service writes down of its fold.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    rules: Rules,
    #[n(1)]
    calls: CallFold,
}

/// The only way out.
pub struct Network {
    node: Node,
    registry: Arc<Registry>,
    interfaces: Interfaces,
    kernel: Kernel,
    /// Room for connects of all programs.
    connects: Arc<Semaphore>,
    /// Room for connections that are relayed.
    relays: Arc<Semaphore>,
    carriers: Carriers,
    /// Sockets for datagrams of programs, and bytes of what waits for them.
    datagram_sockets: Arc<Semaphore>,
    waiting_datagrams: Arc<Semaphore>,
    /// Room for connections to the proxies of programs.
    proxied: Arc<Semaphore>,
    /// Room for connections of proxies that wait for the next request.
    kept: Arc<Semaphore>,
    /// When everything was last looked through because there was no room.
    looked: Mutex<Option<std::time::Instant>>,
    /// Those that may connect, by what they are known as.
    programs: Mutex<HashMap<String, Arc<Program>>>,
    /// Sockets of programs on which a `connect` is being decided or carried out, by the kernel's numbers.
    claimed: Mutex<HashSet<u64>>,
    /// Which rule decided last about what.
    expected: Mutex<Expected>,
    /// How often each program may connect.
    rates: Programs,
    resolver: Arc<Resolver>,
    calls: Arc<Calls>,
}

impl Service for Network {
    const NAME: &'static str = "network";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const PROVIDES: &'static [&'static str] = &["network.sockets Network/1.0", "network.calls Network/1.0"];
    const FOLD_VERSION: Option<u32> = Some(FOLD_VERSION);

    const GREETING: Option<&'static [u8]> = Some(GREETING);

    fn take(self: &Arc<Self>, caller: &Caller, stream: UnixStream) {
        self.take_program(caller, stream);
    }

    fn table() -> &'static [Operation] {
        &TABLE
    }

    fn feed() -> Option<FeedPlan> {
        Some(FeedPlan::of_types(&FOLDED_TYPES))
    }

    async fn init(context: InitContext) -> Result<Self, BoxError> {
        let interfaces = Interfaces::follow(context.node.clone());
        let registry = Arc::new(Registry::since(kit::boot_time_ns()));
        let calls = Arc::new(Calls::new());
        tokio::spawn(Arc::clone(&calls).follow_addresses(Arc::clone(&registry), interfaces.clone()));
        let settings = resolver::settings()?;
        Ok(Self {
            node: context.node,
            registry,
            interfaces,
            kernel: Kernel::take(),
            connects: Arc::new(Semaphore::new(CONNECTS_MAX)),
            relays: Arc::new(Semaphore::new(RELAYS_MAX)),
            carriers: Carriers::default(),
            datagram_sockets: Arc::new(Semaphore::new(DATAGRAM_SOCKETS_MAX)),
            waiting_datagrams: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            proxied: Arc::new(Semaphore::new(PROXIED_MAX)),
            kept: Arc::new(Semaphore::new(PROXY_KEPT_MAX)),
            looked: Mutex::default(),
            programs: Mutex::default(),
            claimed: Mutex::default(),
            expected: Mutex::default(),
            rates: settings.programs,
            resolver: Resolver::new(settings),
            calls,
        })
    }

    fn routes(self: &Arc<Self>, kind: ChannelKind) -> Routes {
        match kind {
            ChannelKind::Edge | ChannelKind::Admin => {
                let server = NetworkServer::new(contract::Handlers(Arc::clone(self)));
                Routes::new(server.max_decoding_message_size(MESSAGE_BYTES_MAX))
            }
            _ => Routes::default(),
        }
    }

    fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        let payload = entry.decode()?;
        let registry = &self.registry;
        self.fold_calls(AxiomRef { sequence: entry.sequence, hash: entry.hash }, payload);
        if let Some(rule) = registry.rules().apply(payload) {
            self.withhold_by(&rule);
            registry.end_rule(&rule, &format!("rule {rule} was removed"));
        }
        match payload {
            Payload::ConnectionRevoke(revoked) => {
                let why = format!("revoked: {}", base::visible(&revoked.body.reason));
                registry.end(&revoked.body.connection, &why);
            }
            Payload::IdentityUpdated(updated) => {
                if let IdentityChange::Status { new, .. } = &updated.body.change
                    && *new != IdentityStatus::Active
                {
                    let owner = updated.body.identity;
                    self.withhold_of(&owner);
                    registry.cut_all(|sockets| sockets.of(&owner), "its identity is not active");
                }
            }
            // Whoever knew the numbers of its sockets is gone. One that is told late has been started again meanwhile.
            Payload::ServiceStop(entry) if !entry.body.late => self.forget(&entry.body.name),
            Payload::ServiceFailed(entry) if !entry.body.late => self.forget(&entry.body.name),
            _ => {}
        }
        Ok(())
    }

    /// What a program has is cut by its monitor: who is answered can rely on that.
    async fn settled(&self) {
        if self.registry.has_cut_of_programs() {
            // Not before: who waits for this is told so, and axiom ends a service that lags for too long.
            while !self.cut_is_done().await {}
        }
    }

    /// Rules, types of services and the policy by URL: all else that it folds ends what is live, and at its start nothing is.
    fn save(&self) -> Vec<u8> {
        base::cbor::encode(&Saved { rules: self.registry.rules().clone(), calls: self.calls.fold() })
    }

    fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        let saved: Saved = base::cbor::decode(own)?;
        *self.registry.rules() = saved.rules;
        self.calls.restore(saved.calls);
        Ok(())
    }

    fn health(&self) -> Vec<Component> {
        vec![self.interfaces.health(), self.resolver.health(), self.kernel.health(), self.secrets_health()]
    }
}

impl Network {
    fn forget(&self, service: &str) {
        self.registry.remove_of(service, "the service that made it has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_contract() {
        let faults = kit::check_table(&["bailiwick.network.v1.Network"], &TABLE);
        assert_eq!(faults, Vec::<String>::new());
    }

    /// Programs, rights, identities and files are others': it has no operation, no right and no entry about them.
    ///
    /// covers: NET-23
    #[test]
    fn it_is_the_way_out_and_nothing_else() {
        for operation in &TABLE {
            assert!(operation.path.starts_with("/bailiwick.network.v1.Network/"), "{}", operation.path);
            assert!(operation.capability.starts_with("system.network."), "{}", operation.capability);
        }
        assert!(Network::PROVIDES.iter().all(|what| what.starts_with("network.")));
        let manifest = include_str!("../../manifest.toml");
        for other in ["process_manager", "identity", "capability_service", "keys", "filesystem"] {
            assert!(!manifest.contains(&format!("name = \"{other}\"")), "{other}");
        }
    }
}
