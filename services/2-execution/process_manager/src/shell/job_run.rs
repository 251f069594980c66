//! One run of a job: a folder, a monitor, the end, the outputs.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
    time::Instant,
};

use base::{Hash, ProcessId};
use chain::payload::process::ResourceUsage;
use job::{Binding, JobError, JobManifest, limits::STDERR_BYTES_MAX};
use tokio::sync::watch;

use super::{control::Control, keeper::KeeperError, manager::Manager};
use crate::{
    core::{JobPlace, JobPlans, OUT_FOLDER, Watch, ended_as, job_plans},
    monitor::{
        output::OUTPUT_BYTES_MAX,
        protocol::{Config, Ended, Reply, Request},
    },
};

/// What a run gave.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub(super) outputs: Vec<Binding>,
    pub(super) usage: ResourceUsage,
    pub(super) duration_ns: u64,
}

fn failed(what: &str, error: impl std::fmt::Display) -> JobError {
    JobError::EnvironmentError(format!("{what}: {error}"))
}

/// Comes when somebody cancels; never where nobody can any more.
pub(super) async fn asked(cancelled: &mut watch::Receiver<bool>) {
    let gone = cancelled.wait_for(|cancelled| *cancelled).await.is_err();
    if gone {
        std::future::pending::<()>().await;
    }
}

impl Manager {
    /// Runs it to its end and takes its outputs: into the content store, or by their hashes alone.
    pub(super) async fn run_job(
        self: &Arc<Self>,
        manifest: &JobManifest,
        keeps: bool,
        cancelled: &mut watch::Receiver<bool>,
    ) -> Result<Ran, JobError> {
        let run = {
            let mut state = self.state();
            let on_record = state.ledger.highest().max(state.jobs.highest());
            state.table.reserve(on_record)
        };
        let out = self.jobs.runs.join(run.0.to_string());
        let result = self.run_in(run, &out, manifest, keeps, cancelled).await;
        self.dismiss(run).await;
        super::jobs::give_back(&out);
        if let Err(error) = fs::remove_dir_all(&out) {
            tracing::warn!(%error, folder = %out.display(), "the folder of a run stays");
        }
        result
    }

    async fn run_in(
        self: &Arc<Self>,
        run: ProcessId,
        out: &Path,
        manifest: &JobManifest,
        keeps: bool,
        cancelled: &mut watch::Receiver<bool>,
    ) -> Result<Ran, JobError> {
        // The job may have another uid of the host than this service.
        fs::create_dir(out)
            .and_then(|()| fs::set_permissions(out, fs::Permissions::from_mode(0o777)))
            .map_err(|error| failed("making the output folder", error))?;
        let place = JobPlace { run };
        let plans = job_plans(manifest, &place, &self.host);
        let image = self.images.open(manifest.executable.hash, false).await;
        let image = image.map_err(|error| failed("opening the executable", error))?;
        for input in &manifest.inputs {
            // Hashed again unless it is untouched since the last time.
            self.images.open(input.hash, false).await.map_err(|error| failed("opening an input", error))?;
        }
        let slots = self.job_slots(run, out, manifest, &plans, image);
        let slots = slots.map_err(|error| failed("preparing a run", error))?;
        let launched = self.keeper.launch(run.0, &plans.monitor, slots).await;
        launched.map_err(|error| match error {
            KeeperError::Launch { step, text } => failed(&step, text),
            other => failed("starting the monitor", other),
        })?;
        let started = Instant::now();
        match self.ask_monitor(run, &Request::Release).await {
            Ok(Reply::Started) => {}
            Ok(Reply::StartFailed { step, text, .. }) => return Err(failed(&step, text)),
            other => return Err(failed("starting the program", format!("{other:?}"))),
        }
        let ended = tokio::select! {
            ended = self.end_of(run) => ended?,
            () = asked(cancelled) => {
                // The monitor is PID 1 of all of it.
                let _ = self.keeper.kill(run.0).await;
                return Err(JobError::Cancelled);
            }
        };
        let duration_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let usage = self.judge(run, manifest, ended).await?;
        let outputs = self.collect(out, manifest, keeps).await?;
        Ok(Ran { outputs, usage, duration_ns })
    }

    async fn end_of(&self, run: ProcessId) -> Result<Ended, JobError> {
        let wait = async {
            let mut control = Control::connect(&self.socket(run)).await?;
            // Nothing is given to it on its standard input.
            control.call(&Request::StdinEnd).await?;
            control.call(&Request::Wait).await
        };
        match wait.await {
            Ok(Reply::Ended(ended)) => Ok(ended),
            other => Err(failed("waiting for its end", format!("{other:?}"))),
        }
    }

    /// What it used, if it ended well and within its limits.
    async fn judge(
        &self,
        run: ProcessId,
        manifest: &JobManifest,
        ended: Ended,
    ) -> Result<ResourceUsage, JobError> {
        const KILLED: chain::payload::process::ExitStatus = chain::payload::process::ExitStatus::Signal(9);
        let mut usage = ended.usage;
        let mut status = ended.status;
        if let Ok(group) = self.keeper.measure(run.0).await {
            usage.memory_peak_bytes = usage.memory_peak_bytes.max(group.memory_peak_bytes);
            usage.cpu_time_ns = usage.cpu_time_ns.max(group.cpu_time_us.saturating_mul(1000));
            if status == KILLED && group.oom_kills > 0 {
                status = chain::payload::process::ExitStatus::Limit("memory".to_owned());
            }
        }
        if let Some(text) = ended.untaken {
            return Err(JobError::ExecutionError { exit_code: 0, stderr: text });
        }
        let stderr = self.stderr_of(run);
        if let Some(error) = ended_as(&status, &ended.refused, &stderr) {
            return Err(error);
        }
        match ended.usage.cpu_time_ns > manifest.environment.cpu_limit.saturating_mul(1_000_000) {
            true => Err(JobError::ResourceExceeded("cpu_time".to_owned())),
            false => Ok(usage),
        }
    }

    /// The end of what it said.
    fn stderr_of(&self, run: ProcessId) -> String {
        let bytes = fs::read(self.folder(run).join("stderr")).unwrap_or_default();
        let end = bytes.get(bytes.len().saturating_sub(STDERR_BYTES_MAX)..).unwrap_or_default();
        base::visible(String::from_utf8_lossy(end).trim_end()).chars().take(STDERR_BYTES_MAX).collect()
    }

    fn job_slots(
        &self,
        run: ProcessId,
        out: &Path,
        manifest: &JobManifest,
        plans: &JobPlans,
        image: File,
    ) -> io::Result<Vec<OwnedFd>> {
        let folder = self.folder(run);
        self.remove_folder(run);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let config = Config {
            plan: plans.program.clone(),
            watch: Watch { granted: Vec::new(), home: OUT_FOLDER.to_owned(), masked: Vec::new() },
            image_path: Some(plans.image_path.clone()),
            timeout_ms: manifest.resources.wall_limit,
            // There is no `/proc` in which the monitor could add it up: the kernel counts, and `judge` compares.
            cpu_time_ms: 0,
            own_network: true,
            output_bytes_max: OUTPUT_BYTES_MAX,
            terminal: None,
            layers_bytes_max: None,
            fixed: Some(plans.fixed),
            calls_pass: kit::is_broken("job-calls"),
            outputs: manifest.outputs.iter().map(|output| in_out(&output.path).to_owned()).collect(),
            way_out: false,
            datagrams: false,
            proxy: false,
            outputs_bytes_max: manifest.resources.output_limit,
            learn: false,
        };
        let mut slots = self.usual_slots(run, &config, image)?;
        slots.push(File::open(out)?.into());
        Ok(slots)
    }

    /// The declared outputs, in the manifest's order; nothing else that lies there counts.
    async fn collect(
        self: &Arc<Self>,
        out: &Path,
        manifest: &JobManifest,
        keeps: bool,
    ) -> Result<Vec<Binding>, JobError> {
        let (manager, out, manifest) = (Arc::clone(self), out.to_owned(), manifest.clone());
        let collected = tokio::task::spawn_blocking(move || {
            let mut left = manifest.resources.output_limit;
            let mut outputs = Vec::new();
            for output in &manifest.outputs {
                let path = out.join(in_out(&output.path));
                let file = match open_output(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !output.required => continue,
                    Err(error) => {
                        let text = format!("output {} at {}: {error}", output.name, output.path);
                        return Err(JobError::ExecutionError { exit_code: 0, stderr: text });
                    }
                };
                let size = file.metadata().map_err(|error| failed("looking at an output", error))?.len();
                left = left
                    .checked_sub(size)
                    .ok_or_else(|| JobError::ResourceExceeded("output_limit".to_owned()))?;
                let hash = if keeps {
                    manager.images.keep(file, size).map(|(hash, _)| hash)
                } else {
                    Hash::of_reader(file)
                };
                let hash = hash.map_err(|error| failed("taking an output over", error))?;
                outputs.push(Binding { name: output.name.clone(), hash, size });
            }
            Ok(outputs)
        });
        collected.await.unwrap_or_else(|error| Err(failed("collecting outputs", error)))
    }
}

/// Its name below the folder in which a job writes.
fn in_out(path: &str) -> &str {
    path.strip_prefix(OUT_FOLDER).unwrap_or_default().trim_start_matches('/')
}

/// A regular file and no link to one: a copy of what the job made.
fn open_output(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(format!("descriptor {} is no regular file", file.as_raw_fd()))),
    }
}
