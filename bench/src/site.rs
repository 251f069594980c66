//! A node in a temporary folder, used from outside: by the command line, and by the contracts on its admin sockets.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base::{IdentityId, TraceId, layout::Layout};
use chain::payload::{Payload, identity::IdentityType, service::Genesis};
use contracts::{
    identity::v1::{IssueTokenRequest, identities_client::IdentitiesClient},
    supervisor::v1::{self as supervisor, supervisor_client::SupervisorClient},
};
use kit::{
    OperationContext, Peer,
    client::Calls,
    context::{ActorType, ContextFields},
};

/// Names the release binary; without it cargo builds one.
pub(crate) const BINARY_VARIABLE: &str = "BAILIWICK_BIN";
/// The node's own; each is asked for its health once a second.
pub(crate) const NODE_SERVICES: usize = 8;
/// Calls of the bench are either fast or a failure.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A run of the bench is shorter.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Everything runs within this, or the bench gives up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The binary to be measured.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os(BINARY_VARIABLE).map(PathBuf::from) {
        return if file.is_file() {
            Ok(file)
        } else {
            bail!("{BINARY_VARIABLE} names no file: {}", file.display())
        };
    }
    cargo_build(&["--package", "bailiwick"])?;
    let own = std::env::current_exe().context("this program")?;
    let beside = own.with_file_name("bailiwick");
    if beside.is_file() {
        Ok(beside)
    } else {
        bail!("{} is not there; run the bench with --release", beside.display())
    }
}

/// Builds what a variable does not name.
pub(crate) fn cargo_build(what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--quiet", "--release"]).args(what).status();
    if built.context("starting cargo")?.success() {
        Ok(())
    } else {
        bail!("cargo build {} failed", what.join(" "))
    }
}

/// The trivial service, below a folder of its own.
pub(crate) fn trivial_service(folder: &Path) -> Result<PathBuf> {
    beside("bench-service", folder)
}

/// A program of this package, copied below a folder of its own, which a sandbox can be shown without showing anything else.
pub(crate) fn beside(name: &str, folder: &Path) -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program")?;
    let beside = own.with_file_name(name);
    if !beside.is_file() {
        bail!("{} is not there; `cargo build --release -p bench` builds it", beside.display());
    }
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).with_context(|| format!("making {}", bin.display()))?;
    let program = bin.join(name);
    std::fs::copy(&beside, &program).with_context(|| format!("copying {}", beside.display()))?;
    Ok(program)
}

/// A folder of its own for one part; gone when this value is.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Short, since sockets live below it.
    pub(crate) fn new(parent: &Path, purpose: &str) -> Result<Self> {
        let path = parent.join(format!("bwb-{purpose}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("bench: {} stays: {error}", self.0.display());
        }
    }
}

pub(crate) struct Site {
    binary: PathBuf,
    root: PathBuf,
    /// In front of each command, for a node of another user.
    becoming: Vec<String>,
    up: bool,
}

impl Site {
    /// A node that has never been started, below `root`.
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        Ok(Self::of_user(binary()?, root, Vec::new()))
    }

    pub(crate) fn of_user(binary: PathBuf, root: PathBuf, becoming: Vec<String>) -> Self {
        Self { binary, root, becoming, up: false }
    }

    pub(crate) fn started(root: PathBuf) -> Result<Self> {
        let mut site = Self::new(root)?;
        site.up()?;
        Ok(site)
    }

    /// Returns when the node's own services run.
    pub(crate) fn up(&mut self) -> Result<()> {
        self.done(&["up", "--detach", "--name", "bench"])?;
        self.up = true;
        Ok(())
    }

    pub(crate) fn down(&mut self) -> Result<()> {
        self.done(&["down"])?;
        self.up = false;
        Ok(())
    }

    pub(crate) fn layout(&self) -> Result<Layout> {
        Ok(Layout::under(&self.root)?)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut words = self.becoming.iter().map(AsRef::as_ref).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("--root").arg(&self.root).args(args).stdin(Stdio::null());
        command
    }

    /// A command that must succeed; what it printed.
    pub(crate) fn done(&self, args: &[&str]) -> Result<String> {
        let output: Output = self.command(args).output().context("starting bailiwick")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("bailiwick {} ended with {}: {}", args.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn operator(&self) -> Result<Operator> {
        Operator::of(self.layout()?)
    }
}

impl Drop for Site {
    /// Only on an error path: what was started must not stay.
    fn drop(&mut self) {
        if self.up
            && let Err(error) = self.down()
        {
            eprintln!("bench: the node did not stop: {error:#}");
        }
    }
}

/// The operator on the node itself, as the command line is one. Its calls need a tokio runtime.
pub(crate) struct Operator {
    pub(crate) layout: Layout,
    pub(crate) genesis: Genesis,
}

impl Operator {
    fn of(layout: Layout) -> Result<Self> {
        let file = layout.genesis();
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        match Payload::decode(0, &bytes).with_context(|| format!("reading {}", file.display()))? {
            Payload::Genesis(envelope) => Ok(Self { layout, genesis: envelope.body }),
            _ => bail!("{} holds no genesis", file.display()),
        }
    }

    pub(crate) fn admin(&self) -> IdentityId {
        self.genesis.admin
    }

    /// The identity under which a service of the node submits.
    pub(crate) fn service(&self, name: &str) -> Result<IdentityId> {
        let name = format!("orbital.services.{name}");
        let found = self.genesis.identities.iter().find(|identity| identity.name == name);
        found.map(|identity| identity.identity_id).with_context(|| format!("genesis names no {name}"))
    }

    pub(crate) fn calls(&self, service: &str, capability: &str, token: Option<&str>) -> Result<Calls> {
        self.calls_within(service, capability, token, CALL_TIMEOUT)
    }

    fn calls_within(
        &self,
        service: &str,
        capability: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Calls> {
        let device =
            self.genesis.identities.iter().find(|identity| identity.identity_type == IdentityType::Node);
        let fields = ContextFields {
            app_id: Some("app_0".to_owned()),
            requester_identity_id: Some(self.admin()),
            device_id: device.map(|identity| identity.identity_id),
            actor_type: Some(ActorType::User),
            capability: Some(capability.to_owned()),
            is_remote: Some(false),
            trace_id: Some(TraceId(kit::authority::random_16()?)),
            ..ContextFields::default()
        };
        let context = OperationContext::build(fields, false)?;
        Ok(Peer::at(self.layout.socket("admin", service)).within(&context, token, timeout)?)
    }

    pub(crate) async fn token(&self) -> Result<String> {
        let mut identities =
            IdentitiesClient::new(self.calls("identity", "system.identity.issue_token", None)?);
        Ok(identities.issue_token(IssueTokenRequest::default()).await?.into_inner().token)
    }

    pub(crate) fn supervisor(&self, verb: &str) -> Result<SupervisorClient<Calls>> {
        Ok(SupervisorClient::new(self.calls("supervisor", &format!("system.supervisor.{verb}"), None)?))
    }

    /// For events, which come as long as the node runs.
    pub(crate) fn events(&self) -> Result<SupervisorClient<Calls>> {
        let calls = self.calls_within("supervisor", "system.supervisor.subscribe", None, EVENTS_TIMEOUT)?;
        Ok(SupervisorClient::new(calls))
    }

    /// Keeper and supervisor.
    pub(crate) async fn node_pids(&self) -> Result<[i32; 2]> {
        let node = self.supervisor("get_node")?.get_node(supervisor::GetNodeRequest {}).await?.into_inner();
        let pid = |pid: u32| i32::try_from(pid).context("a pid that is none");
        Ok([pid(node.keeper_pid)?, pid(node.supervisor_pid)?])
    }

    /// Milliseconds from the keeper's start until all services ran, and the keeper's pid.
    pub(crate) async fn boot_ms_and_keeper(&self) -> Result<(f64, i32)> {
        let node = self.supervisor("get_node")?.get_node(supervisor::GetNodeRequest {}).await?.into_inner();
        Ok((node.boot_ms as f64, i32::try_from(node.keeper_pid).context("a pid that is none")?))
    }

    pub(crate) async fn services(&self) -> Result<Vec<supervisor::ServiceStatus>> {
        let list =
            self.supervisor("list_services")?.list_services(supervisor::ListServicesRequest {}).await?;
        Ok(list.into_inner().services)
    }

    /// Registers services and starts them, one after the other.
    pub(crate) async fn apply(&self, manifests: &[String]) -> Result<()> {
        let mut supervisor = self.supervisor("apply_manifest")?;
        for manifest in manifests {
            let request = supervisor::ApplyManifestRequest {
                manifest: manifest.clone(),
                file: "bench.toml".to_owned(),
            };
            supervisor.apply_manifest(request).await.context("applying a manifest")?;
        }
        Ok(())
    }

    /// Waits until `count` services run.
    pub(crate) async fn settled(&self, count: usize) -> Result<()> {
        let since = Instant::now();
        loop {
            let services = self.services().await?;
            let running = services.iter().filter(|service| service.state == "Running").count();
            if running == count && services.len() == count {
                return Ok(());
            }
            if since.elapsed() > SETTLE_TIMEOUT {
                bail!("{running} of {count} services run after {} s", SETTLE_TIMEOUT.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
