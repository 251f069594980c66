//! The authority table: one row for each operation. An operation without a row does not exist.

use std::collections::{BTreeSet, HashMap};

use chain::payload::capability::Permissions;
use prost::Message;

/// How much one call costs (ADM-08).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// A look-up in memory: expected below 1 ms.
    Light,
    /// A commit, a signature, a file: expected below 50 ms.
    Medium,
    /// A process, an image, a scan of the log: expected below 5 s.
    Heavy,
}

/// Whether an operation changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Needs a committed decision before its effect.
    Acts,
    /// Reads local state.
    Reads,
}

/// What the capability of a client must permit for a call over an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// `read` and `query` in a manifest.
    Read,
    Write,
    Execute,
}

impl From<Right> for Permissions {
    fn from(right: Right) -> Self {
        let nothing = Self::default();
        match right {
            Right::Read => Self { read: true, ..nothing },
            Right::Write => Self { write: true, ..nothing },
            Right::Execute => Self { execute: true, ..nothing },
        }
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
        })
    }
}

/// On which sockets an operation exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Every edge of the manifests, and the operator.
    Any,
    /// The operator alone.
    Admin,
    /// These clients alone.
    Only(&'static [&'static str]),
    /// These clients and the operator.
    AdminAnd(&'static [&'static str]),
    /// Workloads on sockets of their own, and nobody on any other.
    Workload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `/bailiwick.keys.v1.Keys/Sign`.
    pub path: &'static str,
    pub cost: Cost,
    /// `system.keys.sign` (GRT-04).
    pub capability: &'static str,
    pub effect: Effect,
    pub callers: Callers,
    /// On an edge: what an act needs is `Write` and a read `Read`, unless the row says otherwise.
    pub right: Right,
    /// A context without a requester is let in, and a client without a capability.
    pub public: bool,
    /// Answers when something happens or streams for long: no time limit, and the class's slot is given back
    /// once the call is admitted; it counts towards the calls in flight of its socket alone.
    pub long: bool,
}

impl Operation {
    #[must_use]
    pub const fn acts(path: &'static str, cost: Cost, capability: &'static str) -> Self {
        Self {
            path,
            cost,
            capability,
            effect: Effect::Acts,
            callers: Callers::Any,
            right: Right::Write,
            public: false,
            long: false,
        }
    }

    #[must_use]
    pub const fn reads(path: &'static str, cost: Cost, capability: &'static str) -> Self {
        Self {
            path,
            cost,
            capability,
            effect: Effect::Reads,
            callers: Callers::Any,
            right: Right::Read,
            public: false,
            long: false,
        }
    }

    #[must_use]
    pub const fn callers(mut self, callers: Callers) -> Self {
        self.callers = callers;
        self
    }

    #[must_use]
    pub const fn right(mut self, right: Right) -> Self {
        self.right = right;
        self
    }

    #[must_use]
    pub const fn public(mut self) -> Self {
        self.public = true;
        self
    }

    #[must_use]
    pub const fn long(mut self) -> Self {
        self.long = true;
        self
    }

    /// Whether a client may call at all; `is_admin` comes from the socket.
    #[must_use]
    pub fn lets_in(&self, client: &str, is_admin: bool) -> bool {
        match self.callers {
            Callers::Any => true,
            Callers::Admin => is_admin,
            Callers::Workload => false,
            Callers::Only(clients) => !is_admin && clients.contains(&client),
            Callers::AdminAnd(clients) => is_admin || clients.contains(&client),
        }
    }
}

/// Rows by path.
#[derive(Debug)]
pub struct Table {
    rows: HashMap<&'static str, (usize, &'static Operation)>,
}

impl Table {
    #[must_use]
    pub fn new(rows: &'static [Operation]) -> Self {
        Self { rows: rows.iter().enumerate().map(|(index, row)| (row.path, (index, row))).collect() }
    }

    /// The row and its place in the table.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<(usize, &'static Operation)> {
        self.rows.get(path).copied()
    }
}

/// Compares a table with the contracts that a service serves (`["bailiwick.keys.v1.Keys"]`): every operation has
/// one row, every row an operation, every capability the form `area.service.verb`. Returns what is wrong.
#[must_use]
pub fn check_table(services: &[&str], table: &[Operation]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut contract: BTreeSet<String> = BTreeSet::new();
    match prost_types::FileDescriptorSet::decode(contracts::FILE_DESCRIPTOR_SET) {
        Ok(set) => {
            for file in &set.file {
                for service in &file.service {
                    let package = file.package();
                    let dot = if package.is_empty() { "" } else { "." };
                    let name = format!("{package}{dot}{}", service.name());
                    if services.contains(&name.as_str()) {
                        contract
                            .extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
                    }
                }
            }
        }
        Err(error) => faults.push(format!("the descriptor set cannot be read: {error}")),
    }
    for service in services {
        if !contract.iter().any(|path| path.starts_with(&format!("/{service}/"))) {
            faults.push(format!("no contract has a service {service}"));
        }
    }
    let mut rows = BTreeSet::new();
    for row in table {
        if !rows.insert(row.path.to_owned()) {
            faults.push(format!("{} has two rows", row.path));
        }
        if !is_capability_name(row.capability) {
            faults.push(format!("{} has capability {:?}, not `area.service.verb`", row.path, row.capability));
        }
    }
    faults.extend(contract.difference(&rows).map(|path| format!("{path} has no row")));
    faults.extend(rows.difference(&contract).map(|path| format!("row {path} has no operation")));
    faults
}

/// `<area>.<service>.<verb>` in lower snake segments, at most 64 bytes (GRT-04, open point 15); `system.admin` too.
#[must_use]
pub fn is_capability_name(text: &str) -> bool {
    let segment = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.len() <= base::limits::NAME_BYTES_MAX
        && (2..=4).contains(&text.split('.').count())
        && text.split('.').all(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "bailiwick.keys.v1.Keys";

    fn rows() -> Vec<Operation> {
        let acts = ["Sign", "SignBytes", "Encrypt", "Decrypt", "Rotate", "Lock", "Unlock"];
        let reads = ["DerivePublicKey", "Verify", "GetKeyInfo"];
        acts.into_iter()
            .chain(reads)
            .map(|name| format!("/{KEYS}/{name}").leak() as &'static str)
            .map(|path| Operation::reads(path, Cost::Light, "system.keys.use"))
            .collect()
    }

    /// covers: GRT-04
    #[test]
    fn a_table_is_compared_with_its_contract() {
        assert_eq!(check_table(&[KEYS], &rows()), Vec::<String>::new());
        let mut missing = rows();
        missing.pop();
        assert_eq!(check_table(&[KEYS], &missing), ["/bailiwick.keys.v1.Keys/GetKeyInfo has no row"]);
        let mut extra = rows();
        extra.push(Operation::reads("/bailiwick.keys.v1.Keys/Leak", Cost::Light, "system.keys.leak"));
        assert_eq!(check_table(&[KEYS], &extra), ["row /bailiwick.keys.v1.Keys/Leak has no operation"]);
        let mut twice = rows();
        twice.push(twice[0]);
        assert_eq!(check_table(&[KEYS], &twice).len(), 1);
        let mut wrong = rows();
        wrong[0].capability = "Keys.Sign";
        assert_eq!(check_table(&[KEYS], &wrong).len(), 1);
        assert!(!check_table(&["bailiwick.keys.v1.Kees"], &rows()).is_empty());
    }

    /// covers: GRT-04
    #[test]
    fn capability_names_have_lower_snake_segments() {
        for good in ["system.admin", "system.keys.sign", "system.apps.publish", "a.b_2.c"] {
            assert!(is_capability_name(good), "{good}");
        }
        for bad in [
            "",
            "system",
            "System.keys.sign",
            "system..sign",
            ".system.keys",
            "system.keys.2x",
            "a.b.c.d.e",
            "a b.c",
        ] {
            assert!(!is_capability_name(bad), "{bad}");
        }
        let name = |bytes: usize| format!("a.{}", "b".repeat(bytes - 2));
        assert!(is_capability_name(&name(64)));
        assert!(!is_capability_name(&name(65)));
    }

    #[test]
    fn rows_say_who_may_call() {
        let row = |callers| Operation::reads("/a.B/C", Cost::Light, "system.a.c").callers(callers);
        let lets = |callers, client, admin| row(callers).lets_in(client, admin);
        assert!(lets(Callers::Any, "keys", false) && lets(Callers::Any, "admin", true));
        assert!(lets(Callers::Admin, "admin", true) && !lets(Callers::Admin, "admin", false));
        assert!(
            lets(Callers::Only(&["keys"]), "keys", false) && !lets(Callers::Only(&["keys"]), "policy", false)
        );
        assert!(!lets(Callers::Only(&["admin"]), "admin", true));
        assert!(!lets(Callers::Workload, "keys", false) && !lets(Callers::Workload, "admin", true));
        assert!(
            lets(Callers::AdminAnd(&["keys"]), "keys", false)
                && lets(Callers::AdminAnd(&["keys"]), "x", true)
        );
        assert!(!lets(Callers::AdminAnd(&["keys"]), "policy", false));
    }
}
