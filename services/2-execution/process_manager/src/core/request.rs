//! A spawn request, checked: everything that can be refused without asking anybody.

use base::{CapabilityId, EntryKey, Hash, IdentityId};
use chain::payload::process::ResourceLimits;
use contracts::process_manager::v1 as pb;
use kit::way_out::Credential;
use minicbor::{Decode, Encode};
use sandbox::{Guard, GuardSet, PRIORITY_MAX, PRIORITY_NORMAL};

use super::{
    ProcessError, Root, Secret, credential, io_limits,
    limits::{
        ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, CAPABILITIES_MAX, CPU_MILLICORES_MAX, CPU_MILLICORES_MIN,
        DISK_BYTES_MIN, EGRESS_BYTES_MAX, EGRESS_MAX, ENVIRONMENT_BYTES_MAX, ENVIRONMENT_MAX,
        LOGGED_NAME_BYTES_MAX, MEMORY_BYTES_MIN, NAME_BYTES_MAX, PATHS_MAX, TIMEOUT_MS_MAX,
    },
    secret,
};

/// The defence of this service itself that can be switched off: the comparison of an image with its name.
pub(super) const HASH_PIN: &str = "hash-pin";

/// A host path made visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGrant {
    pub source: String,
    pub inside: String,
    pub writable: bool,
    /// Looks writable; what is changed lies in a layer.
    pub copied: bool,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct WindowSize {
    #[n(0)]
    pub rows: u16,
    #[n(1)]
    pub columns: u16,
}

impl WindowSize {
    pub fn parse(wire: &pb::WindowSize) -> Result<Self, ProcessError> {
        let size = u16::try_from(wire.rows).ok().zip(u16::try_from(wire.columns).ok());
        let (rows, columns) = size.ok_or_else(|| {
            let text =
                format!("{} rows and {} columns; at most {} are allowed", wire.rows, wire.columns, u16::MAX);
            ProcessError::invalid("terminal", text)
        })?;
        Ok(Self { rows, columns })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Spawn {
    pub image: Hash,
    pub args: Vec<String>,
    pub capabilities: Vec<CapabilityId>,
    pub limits: ResourceLimits,
    pub identity: IdentityId,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub paths: Vec<PathGrant>,
    pub priority: u8,
    pub name: String,
    /// Where it was found, if that was said.
    pub path: Option<String>,
    pub timeout_ms: u64,
    /// As the caller gave it.
    pub key: EntryKey,
    pub notice_refused: bool,
    /// Which files it uses is taken down.
    pub learn: bool,
    pub terminal: Option<WindowSize>,
    pub secrets: Vec<Secret>,
    pub disabled: GuardSet,
    /// The image is not compared with its name.
    pub unpinned: bool,
    pub root: Option<Root>,
    /// Whereto it may connect; `network` reads it.
    pub egress: Vec<String>,
    /// A proxy listens on its own loopback.
    pub proxy: bool,
    /// What `network` puts into what is asked of it.
    pub credentials: Vec<Credential>,
}

pub(super) fn at_most(field: &'static str, size: usize, max: usize, what: &str) -> Result<(), ProcessError> {
    if size > max {
        return Err(ProcessError::invalid(field, format!("{size} {what}, at most {max} are allowed")));
    }
    Ok(())
}

pub(super) fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ProcessError> {
    bytes.try_into().map_err(|_| ProcessError::invalid(field, format!("{} bytes, not {N}", bytes.len())))
}

fn no_zero(field: &'static str, text: &str) -> Result<(), ProcessError> {
    if text.contains('\0') { Err(ProcessError::invalid(field, "contains a zero byte")) } else { Ok(()) }
}

/// An absolute path without `..`, as plans take them.
pub(super) fn absolute(field: &'static str, path: &str) -> Result<(), ProcessError> {
    no_zero(field, path)?;
    at_most(field, path.len(), sandbox::PATH_BYTES_MAX, "bytes")?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(ProcessError::invalid(field, format!("{path:?} is not an absolute path without `..`")));
    }
    Ok(())
}

impl Spawn {
    /// `allowed` are the defences that the node was started to let fall.
    pub fn parse(request: pb::SpawnRequest, allowed: &[String]) -> Result<Self, ProcessError> {
        let limits = limits(request.resource_limits.unwrap_or_default())?;
        let capabilities = capabilities(&request.capabilities, &limits)?;
        arguments(&request.args)?;
        let (disabled, unpinned) = guards(&request.disabled_guards, allowed)?;
        let priority = request.priority.unwrap_or(u32::from(PRIORITY_NORMAL));
        let priority = u8::try_from(priority).ok().filter(|priority| *priority <= PRIORITY_MAX);
        let cwd = request.cwd.unwrap_or_else(|| "/".to_owned());
        absolute("cwd", &cwd)?;
        let root = request.root.map(Root::parse).transpose()?;
        // Of a program in an image only the name is known yet.
        let looked_up = root.as_ref().is_some_and(|root| root.tree.is_some()) && request.image.is_empty();
        if request.timeout_ms > TIMEOUT_MS_MAX {
            return Err(ProcessError::invalid(
                "timeout_ms",
                format!("at most {TIMEOUT_MS_MAX} ms are allowed"),
            ));
        }
        Ok(Self {
            image: if looked_up { Hash::ZERO } else { Hash(fixed("image", &request.image)?) },
            args: request.args,
            capabilities,
            limits,
            identity: IdentityId(fixed("identity", &request.identity)?),
            env: environment(request.env)?,
            cwd,
            paths: paths(&request.paths)?,
            priority: priority.ok_or_else(|| {
                ProcessError::invalid("priority", format!("0 to {PRIORITY_MAX} are allowed"))
            })?,
            name: name(request.name)?,
            path: path(request.path)?,
            timeout_ms: request.timeout_ms,
            key: EntryKey(fixed("idempotency_key", &request.idempotency_key)?),
            notice_refused: request.notice_refused || request.learn,
            learn: request.learn,
            terminal: request.terminal.map(|size| WindowSize::parse(&size)).transpose()?,
            secrets: secret::parse(request.secrets)?,
            disabled,
            unpinned,
            root,
            credentials: credential::parse(request.credentials, request.proxy)?,
            proxy: proxy(request.proxy, &request.egress)?,
            egress: egress(request.egress)?,
        })
    }

    /// What the log keeps of the arguments (they may hold what must not be kept for ever): each with its length.
    #[must_use]
    pub fn args_hash(&self) -> Hash {
        arguments_hash(&self.args)
    }

    /// The key under which the log knows this spawn: two callers may choose the same key.
    #[must_use]
    pub fn entry_key(&self, requestor: IdentityId) -> EntryKey {
        let hash = Hash::of_parts(&[b"bailiwick spawn key v1\0", &requestor.0, &self.key.0]);
        let mut key = [0; 16];
        key.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
        EntryKey(key)
    }

    /// What is shown of the host and of an image.
    pub fn all_paths(&self) -> impl Iterator<Item = &PathGrant> {
        self.paths.iter().chain(self.root.iter().flat_map(|root| &root.paths))
    }

    /// Name for the log.
    #[must_use]
    pub fn logged_name(&self) -> String {
        let end = self.name.floor_char_boundary(LOGGED_NAME_BYTES_MAX);
        self.name.get(..end).unwrap_or_default().to_owned()
    }
}

fn proxy(wanted: bool, egress: &[String]) -> Result<bool, ProcessError> {
    match wanted && egress.is_empty() {
        true => Err(ProcessError::invalid("proxy", "there is no place in `egress` that it could lead to")),
        false => Ok(wanted),
    }
}

fn egress(given: Vec<String>) -> Result<Vec<String>, ProcessError> {
    at_most("egress", given.len(), EGRESS_MAX, "places")?;
    for place in &given {
        at_most("egress", place.len(), EGRESS_BYTES_MAX, "bytes")?;
        if place.is_empty() || place.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(ProcessError::invalid("egress", format!("{place:?} is no address and port")));
        }
    }
    Ok(given)
}

fn limits(wire: pb::ResourceLimits) -> Result<ResourceLimits, ProcessError> {
    let limits = ResourceLimits::from(&wire);
    if limits.net_bandwidth_bytes != 0 {
        // A limit that nothing holds must not look like one (PRC-13).
        return Err(ProcessError::invalid(
            "resource_limits",
            "what goes over the network cannot be limited on this node; leave it 0",
        ));
    }
    io_limits::check(&limits)?;
    if limits.memory_bytes < MEMORY_BYTES_MIN {
        return Err(ProcessError::invalid(
            "resource_limits",
            format!("memory below {MEMORY_BYTES_MIN} bytes"),
        ));
    }
    if limits.disk_bytes.is_some_and(|given| given < DISK_BYTES_MIN) {
        return Err(ProcessError::invalid("resource_limits", format!("disk_bytes below {DISK_BYTES_MIN}")));
    }
    let millicores = CPU_MILLICORES_MIN..=CPU_MILLICORES_MAX;
    if limits.cpu_millicores.is_some_and(|given| !millicores.contains(&given)) {
        return Err(ProcessError::invalid(
            "resource_limits",
            format!("cpu_millicores outside {CPU_MILLICORES_MIN} to {CPU_MILLICORES_MAX}"),
        ));
    }
    Ok(limits)
}

pub(super) fn arguments_hash(arguments: &[String]) -> Hash {
    let mut bytes = Vec::new();
    for argument in arguments {
        bytes.extend((argument.len() as u64).to_le_bytes());
        bytes.extend(argument.as_bytes());
    }
    Hash::of_parts(&[b"bailiwick arguments v1\0", &bytes])
}

fn capabilities(ids: &[Vec<u8>], limits: &ResourceLimits) -> Result<Vec<CapabilityId>, ProcessError> {
    let max = CAPABILITIES_MAX.min(limits.capabilities as usize);
    at_most("capabilities", ids.len(), max, "capabilities")?;
    ids.iter().map(|id| fixed("capabilities", id).map(CapabilityId)).collect()
}

pub(super) fn arguments(args: &[String]) -> Result<(), ProcessError> {
    at_most("args", args.len(), ARGUMENTS_MAX, "arguments")?;
    args.iter().try_for_each(|argument| no_zero("args", argument))?;
    at_most("args", args.iter().map(|argument| argument.len() + 1).sum(), ARGUMENT_BYTES_MAX, "bytes")
}

pub(super) fn environment(
    env: std::collections::HashMap<String, String>,
) -> Result<Vec<(String, String)>, ProcessError> {
    at_most("env", env.len(), ENVIRONMENT_MAX, "pairs")?;
    let mut env: Vec<(String, String)> = env.into_iter().collect();
    env.sort_unstable();
    for (name, value) in &env {
        no_zero("env", name)?;
        no_zero("env", value)?;
        if name.is_empty() || name.contains('=') {
            return Err(ProcessError::invalid("env", "a name is empty or contains `=`"));
        }
    }
    let bytes = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    at_most("env", bytes, ENVIRONMENT_BYTES_MAX, "bytes")?;
    Ok(env)
}

fn paths(grants: &[pb::PathGrant]) -> Result<Vec<PathGrant>, ProcessError> {
    /// Parts of the sandbox itself, which a grant may not cover.
    const OWN: [&str; 3] = ["/proc", "/dev", "/run/bailiwick"];
    at_most("paths", grants.len(), PATHS_MAX, "paths")?;
    let mut paths = Vec::with_capacity(grants.len());
    for grant in grants {
        absolute("paths", &grant.path)?;
        let inside = if grant.inside.is_empty() { &grant.path } else { &grant.inside };
        absolute("paths", inside)?;
        let inside = super::normalize(inside);
        if inside == "/" || OWN.iter().any(|own| super::watch::is_below(&inside, own)) {
            let text = format!("{inside:?} belongs to the sandbox; name another place with PATH:ro:INSIDE");
            return Err(ProcessError::invalid("paths", text));
        }
        if grant.writable && grant.copy_on_write {
            return Err(ProcessError::invalid("paths", format!("{inside:?} is either writable or copied")));
        }
        let source = super::normalize(&grant.path);
        if grant.copy_on_write && source == "/" {
            return Err(ProcessError::invalid("paths", "the whole host cannot be shown copy-on-write"));
        }
        paths.push(PathGrant { source, inside, writable: grant.writable, copied: grant.copy_on_write });
    }
    Ok(paths)
}

pub(super) fn name(name: String) -> Result<String, ProcessError> {
    no_zero("name", &name)?;
    at_most("name", name.len(), NAME_BYTES_MAX, "bytes")?;
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.is_empty() || last == "." || last == ".." || last.len() > 255 {
        return Err(ProcessError::invalid("name", "its last part is no file name of 1 to 255 bytes"));
    }
    Ok(name)
}

fn path(path: String) -> Result<Option<String>, ProcessError> {
    if path.is_empty() {
        return Ok(None);
    }
    at_most("path", path.len(), NAME_BYTES_MAX, "bytes")?;
    absolute("path", &path)?;
    Ok(Some(super::normalize(&path)).filter(|path| path != "/"))
}

fn guards(names: &[String], allowed: &[String]) -> Result<(GuardSet, bool), ProcessError> {
    let mut disabled = GuardSet::EMPTY;
    let mut unpinned = false;
    for name in names {
        if !allowed.contains(name) {
            let text =
                format!("{name:?} can be switched off on a node that was started with --allow-break only");
            return Err(ProcessError::invalid("disabled_guards", text));
        }
        match Guard::parse(name) {
            Some(guard) => disabled = disabled.with(guard),
            None if name == HASH_PIN => unpinned = true,
            None => {
                return Err(ProcessError::invalid(
                    "disabled_guards",
                    format!("there is no defence {name:?}"),
                ));
            }
        }
    }
    Ok((disabled, unpinned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> pb::SpawnRequest {
        pb::SpawnRequest {
            image: vec![1; 32],
            identity: vec![2; 32],
            name: "cat".to_owned(),
            idempotency_key: vec![3; 16],
            ..pb::SpawnRequest::default()
        }
    }

    fn parse(change: impl FnOnce(&mut pb::SpawnRequest)) -> Result<Spawn, ProcessError> {
        let mut request = request();
        change(&mut request);
        Spawn::parse(request, &["landlock".to_owned(), HASH_PIN.to_owned()])
    }

    fn refused(change: impl FnOnce(&mut pb::SpawnRequest)) -> &'static str {
        match parse(change) {
            Err(ProcessError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    /// covers: PRC-08, PRC-19, PRC-30, PRC-33
    #[test]
    fn a_plain_request_takes_the_defaults() {
        let spawn = parse(|_| {}).unwrap();
        assert_eq!(spawn.limits, ResourceLimits::default());
        assert_eq!((spawn.cwd.as_str(), spawn.priority), ("/", 16));
        assert!(spawn.disabled.is_empty() && !spawn.unpinned);
        assert_eq!(parse(|r| r.priority = Some(31)).unwrap().priority, 31);
        assert_eq!(refused(|r| r.priority = Some(32)), "priority");
    }

    #[test]
    fn every_limit_holds_at_the_limit_and_one_past_it() {
        assert!(parse(|r| r.args = vec![String::new(); ARGUMENTS_MAX]).is_ok());
        assert_eq!(refused(|r| r.args = vec![String::new(); ARGUMENTS_MAX + 1]), "args");
        assert!(parse(|r| r.args = vec!["x".repeat(ARGUMENT_BYTES_MAX - 1)]).is_ok());
        assert_eq!(refused(|r| r.args = vec!["x".repeat(ARGUMENT_BYTES_MAX)]), "args");
        let env = |count: usize| (0..count).map(|n| (format!("N{n}"), String::new())).collect();
        assert!(parse(|r| r.env = env(ENVIRONMENT_MAX)).is_ok());
        assert_eq!(refused(|r| r.env = env(ENVIRONMENT_MAX + 1)), "env");
        let grants = |count| vec![pb::PathGrant { path: "/a".to_owned(), ..Default::default() }; count];
        assert!(parse(|r| r.paths = grants(PATHS_MAX)).is_ok());
        assert_eq!(refused(|r| r.paths = grants(PATHS_MAX + 1)), "paths");
        assert!(parse(|r| r.name = format!("/{}", "n/".repeat(400) + "cat")).is_ok());
        assert_eq!(refused(|r| r.name = "n/".repeat(NAME_BYTES_MAX)), "name");
        assert!(parse(|r| r.timeout_ms = TIMEOUT_MS_MAX).is_ok());
        assert_eq!(refused(|r| r.timeout_ms = TIMEOUT_MS_MAX + 1), "timeout_ms");
        let most = u32::from(u16::MAX);
        let terminal = |rows, columns| Some(pb::WindowSize { rows, columns });
        assert!(parse(|r| r.terminal = terminal(most, most)).is_ok());
        assert_eq!(refused(|r| r.terminal = terminal(most + 1, 80)), "terminal");
        assert_eq!(refused(|r| r.terminal = terminal(24, most + 1)), "terminal");
        let place = || "192.0.2.1:443".to_owned();
        assert!(parse(|r| r.egress = vec![place(); EGRESS_MAX]).is_ok());
        assert_eq!(refused(|r| r.egress = vec![place(); EGRESS_MAX + 1]), "egress");
        assert!(parse(|r| r.egress = vec!["x".repeat(EGRESS_BYTES_MAX)]).is_ok());
        assert_eq!(refused(|r| r.proxy = true), "proxy");
        assert!(parse(|r| (r.proxy, r.egress) = (true, vec![place()])).unwrap().proxy);
        assert_eq!(refused(|r| r.egress = vec!["x".repeat(EGRESS_BYTES_MAX + 1)]), "egress");
        for broken in ["", "a b:1", "a\n:1"] {
            assert_eq!(refused(|r| r.egress = vec![broken.to_owned()]), "egress", "{broken:?}");
        }
        let pair = |bytes: usize| [("N".to_owned(), "x".repeat(bytes - 3))].into();
        assert!(parse(|r| r.env = pair(ENVIRONMENT_BYTES_MAX)).is_ok());
        assert_eq!(refused(|r| r.env = pair(ENVIRONMENT_BYTES_MAX + 1)), "env");
        assert!(parse(|r| r.name = "n".repeat(255)).is_ok());
        assert_eq!(refused(|r| r.name = "n".repeat(256)), "name");
        assert_eq!(parse(|r| r.path = "//usr/./bin/x".to_owned()).unwrap().path.unwrap(), "/usr/bin/x");
        assert!(parse(|r| r.path = format!("/{}", "p".repeat(NAME_BYTES_MAX - 1))).is_ok());
        assert_eq!(refused(|r| r.path = format!("/{}", "p".repeat(NAME_BYTES_MAX))), "path");
        for path in ["usr/bin/x", "/usr/../x"] {
            assert_eq!(refused(|r| r.path = path.to_owned()), "path");
        }
        let long = |bytes: usize| Some(format!("/{}", "x".repeat(bytes - 1)));
        assert!(parse(|r| r.cwd = long(sandbox::PATH_BYTES_MAX)).is_ok());
        assert_eq!(refused(|r| r.cwd = long(sandbox::PATH_BYTES_MAX + 1)), "cwd");
        assert!(parse(|r| r.capabilities = vec![vec![0; 16]; CAPABILITIES_MAX]).is_ok());
        assert_eq!(refused(|r| r.capabilities = vec![vec![0; 16]; CAPABILITIES_MAX + 1]), "capabilities");
    }

    /// covers: PRC-13
    #[test]
    fn a_limit_that_nothing_holds_is_refused() {
        let with = |limits| move |r: &mut pb::SpawnRequest| r.resource_limits = Some(limits);
        let io = pb::ResourceLimits { io_bandwidth_bytes: 1, ..Default::default() };
        assert_eq!(refused(with(io)), "resource_limits");
        let net = pb::ResourceLimits { net_bandwidth_bytes: 1, ..Default::default() };
        assert_eq!(refused(with(net)), "resource_limits");
        let memory = |memory_bytes| pb::ResourceLimits { memory_bytes, ..Default::default() };
        assert!(parse(with(memory(MEMORY_BYTES_MIN))).is_ok());
        assert_eq!(refused(with(memory(MEMORY_BYTES_MIN - 1))), "resource_limits");
        let disk = |disk_bytes| pb::ResourceLimits { disk_bytes, ..Default::default() };
        assert!(parse(with(disk(DISK_BYTES_MIN))).is_ok());
        assert_eq!(refused(with(disk(DISK_BYTES_MIN - 1))), "resource_limits");
        let cpu = |cpu_millicores| pb::ResourceLimits { cpu_millicores, ..Default::default() };
        for (held, past) in
            [(CPU_MILLICORES_MIN, CPU_MILLICORES_MIN - 1), (CPU_MILLICORES_MAX, CPU_MILLICORES_MAX + 1)]
        {
            assert!(parse(with(cpu(held))).is_ok());
            assert_eq!(refused(with(cpu(past))), "resource_limits");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_and_named() {
        assert_eq!(refused(|r| r.image.truncate(31)), "image");
        assert_eq!(refused(|r| r.identity.clear()), "identity");
        assert_eq!(refused(|r| r.idempotency_key.clear()), "idempotency_key");
        for name in ["", "/", ".", "a/.", "..", "a/..", "a\0"] {
            assert_eq!(refused(|r| r.name = name.to_owned()), "name", "{name:?}");
        }
        for inside in ["/", "/proc/1", "/dev", "/run/bailiwick/x", "/a/../b", "a"] {
            let (path, inside) = ("/a".to_owned(), inside.to_owned());
            let grant = pb::PathGrant { path, inside: inside.clone(), writable: true, ..Default::default() };
            assert_eq!(refused(|r| r.paths = vec![grant]), "paths", "{inside}");
        }
        let named = pb::PathGrant {
            path: "/a".to_owned(),
            inside: "/process".to_owned(),
            writable: true,
            copy_on_write: false,
        };
        assert!(parse(|r| r.paths = vec![named.clone()]).is_ok(), "whole parts count");
        let both = pb::PathGrant { copy_on_write: true, ..named };
        assert_eq!(refused(|r| r.paths = vec![both.clone()]), "paths");
        let copied = pb::PathGrant { writable: false, ..both };
        assert!(parse(|r| r.paths = vec![copied.clone()]).unwrap().paths[0].copied);
        let whole = pb::PathGrant { path: "/".to_owned(), ..copied };
        assert_eq!(refused(|r| r.paths = vec![whole]), "paths");
        for cwd in ["x", "/a/../b", "/..", "/a\0"] {
            assert_eq!(refused(|r| r.cwd = Some(cwd.to_owned())), "cwd", "{cwd:?}");
        }
        assert_eq!(refused(|r| drop(r.env.insert(String::new(), String::new()))), "env");
        assert_eq!(refused(|r| drop(r.env.insert("A=B".to_owned(), String::new()))), "env");
        assert_eq!(refused(|r| r.args = vec!["a\0".to_owned()]), "args");
    }

    #[test]
    fn defences_fall_only_where_the_node_allows_it() {
        let disable = |name: &str| {
            let name = name.to_owned();
            move |r: &mut pb::SpawnRequest| r.disabled_guards = vec![name]
        };
        assert!(parse(disable("landlock")).unwrap().disabled.contains(Guard::Landlock));
        assert!(parse(disable(HASH_PIN)).unwrap().unpinned);
        assert_eq!(refused(disable("seccomp")), "disabled_guards");
        assert!(Spawn::parse(request(), &[]).is_ok());
        let unknown = pb::SpawnRequest { disabled_guards: vec!["nothing".to_owned()], ..request() };
        assert!(Spawn::parse(unknown, &["nothing".to_owned()]).is_err(), "allowed, but there is none");
    }

    #[test]
    fn the_log_keeps_the_beginning_of_a_name() {
        let logged = |name: &str| parse(|r| r.name = name.to_owned()).unwrap().logged_name();
        assert_eq!(logged("/usr/bin/cat"), "/usr/bin/cat");
        let longest = "n".repeat(LOGGED_NAME_BYTES_MAX);
        assert_eq!(logged(&format!("{longest}x")), longest);
        let wide = format!("{}é", "n".repeat(LOGGED_NAME_BYTES_MAX - 1));
        assert_eq!(logged(&wide), "n".repeat(LOGGED_NAME_BYTES_MAX - 1), "whole characters");
    }

    #[test]
    fn keys_belong_to_callers_and_arguments_keep_their_bounds() {
        let spawn = parse(|r| r.args = vec!["ab".to_owned(), "c".to_owned()]).unwrap();
        let other = parse(|r| r.args = vec!["a".to_owned(), "bc".to_owned()]).unwrap();
        assert_ne!(spawn.args_hash(), other.args_hash());
        let (one, two) = (IdentityId([1; 32]), IdentityId([2; 32]));
        assert_eq!(spawn.entry_key(one), other.entry_key(one));
        assert_ne!(spawn.entry_key(one), spawn.entry_key(two));
    }
}
