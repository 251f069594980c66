//! Bailiwick: a node with the trivial services as `[program]`s of the user, each in a sandbox and on record.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use chain::{LogFolder, VerifyOptions, payload::Payload, verify_log};
use contracts::supervisor::v1::EventFilter;
use tokio::runtime::Runtime;

use super::{BACK_TIMEOUT, Stage, Supervision};
use crate::site::{NODE_SERVICES, Operator, Site};

/// How long the thread that hears events may take to hear that the node has ended.
const SILENT_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Bailiwick {
    runtime: Runtime,
    site: Site,
    manifests: Vec<String>,
    /// What the log must hold: starts of the trivial services, and failures.
    starts: usize,
    failures: usize,
    events: Option<Events>,
    applied: bool,
}

/// Names of services that were told to run.
struct Events {
    running: Receiver<String>,
    thread: JoinHandle<()>,
}

impl Bailiwick {
    pub(super) fn new(stage: &Stage) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
        let manifests = stage.names.iter().map(|name| manifest(stage, name)).collect();
        let site = Site::new(stage.folder.join("n"))?;
        Ok(Self { runtime, site, manifests, starts: 0, failures: 0, events: None, applied: false })
    }

    /// The first time: identities are made, manifests kept. From then on the node starts them at its own start.
    fn apply(&mut self) -> Result<()> {
        self.site.up()?;
        let operator = self.site.operator()?;
        self.runtime.block_on(async {
            operator.apply(&self.manifests).await?;
            operator.settled(NODE_SERVICES + self.manifests.len()).await
        })?;
        self.starts += self.manifests.len();
        self.site.down()
    }

    fn listen(operator: Operator) -> Result<Events> {
        let (sender, running) = channel();
        let (ready, is_ready) = channel();
        let thread = std::thread::Builder::new()
            .name("events".into())
            .spawn(move || {
                let heard = hear(&operator, &ready, |name| sender.send(name).is_ok());
                if let Err(error) = heard {
                    // The node's end breaks the stream in one way or another.
                    eprintln!("bench: events end: {error:#}");
                }
            })
            .context("starting a thread")?;
        is_ready.recv_timeout(SILENT_AFTER).context("the supervisor tells no events")?;
        Ok(Events { running, thread })
    }

    /// Every start and every failure of these services is in the log.
    fn check_records(&self) -> Result<()> {
        let folder = LogFolder::new(self.site.layout()?.log());
        let (mut starts, mut failures) = (0, 0);
        let ours =
            |name: &str| self.manifests.iter().any(|text| text.contains(&format!("name = \"{name}\"")));
        let outcome = verify_log(&folder, &VerifyOptions::default(), |placed| {
            match Payload::decode(placed.record.header.entry_type.code(), placed.record.payload) {
                Ok(Payload::ServiceStart(entry)) if ours(&entry.body.name) => starts += 1,
                Ok(Payload::ServiceFailed(entry)) if ours(&entry.body.name) => failures += 1,
                _ => {}
            }
        });
        if let Err(fault) = outcome
            && !fault.may_be_torn_tail
        {
            bail!("the log does not verify: {fault}");
        }
        if (starts, failures) != (self.starts, self.failures) {
            bail!(
                "the log holds {starts} starts and {failures} failures, there were {} and {}",
                self.starts,
                self.failures
            );
        }
        Ok(())
    }
}

fn hear(
    operator: &Operator,
    ready: &std::sync::mpsc::Sender<()>,
    mut take: impl FnMut(String) -> bool,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let mut supervisor = operator.events()?;
        let mut events = supervisor.subscribe(EventFilter::default()).await?.into_inner();
        let _ = ready.send(());
        while let Ok(Some(event)) = events.message().await {
            if event.to == "Running" && !take(event.name) {
                break;
            }
        }
        Ok(())
    })
}

fn manifest(stage: &Stage, name: &str) -> String {
    let folder = stage.program.parent().map(PathBuf::from).unwrap_or_default();
    format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
         [program]\nimage = \"{program}\"\nargs = [\"{socket}\", \"{name}\"]\nfs = [\"{folder}\", \"{socket}:rw\"]\n\
         [health]\nkind = \"sd_notify\"\nstop_timeout_ms = 100\n",
        program = stage.program.display(),
        socket = stage.socket().display(),
        folder = folder.display(),
    )
}

impl Supervision for Bailiwick {
    fn name(&self) -> &'static str {
        "bailiwick"
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn prepare(&mut self, _: &Stage) -> Result<()> {
        if !self.applied {
            self.apply()?;
            self.applied = true;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.site.up()
    }

    fn settle(&mut self) -> Result<()> {
        let operator = self.site.operator()?;
        self.runtime.block_on(operator.settled(NODE_SERVICES + self.manifests.len()))?;
        self.starts += self.manifests.len();
        self.events = Some(Self::listen(operator)?);
        Ok(())
    }

    fn knows(&mut self, service: &str) -> Result<()> {
        let events = self.events.as_ref().context("nobody listens to events")?;
        let since = Instant::now();
        loop {
            let left = BACK_TIMEOUT.saturating_sub(since.elapsed());
            let name =
                events.running.recv_timeout(left).with_context(|| format!("{service} is not told to run"))?;
            if name == service {
                self.starts += 1;
                self.failures += 1;
                return Ok(());
            }
        }
    }

    fn supervisors(&mut self) -> Result<Vec<i32>> {
        let operator = self.site.operator()?;
        Ok(self.runtime.block_on(operator.node_pids())?.to_vec())
    }

    fn stop(&mut self) -> Result<()> {
        self.site.down()?;
        if let Some(Events { running, thread }) = self.events.take() {
            drop(running);
            let _ = thread.join();
        }
        self.check_records()
    }
}
