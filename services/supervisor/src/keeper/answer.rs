//! One function per request. Each answers exactly once; nothing here decides whether a client should.

use std::os::fd::{AsFd, OwnedFd};

use base::cbor;
use sandbox::fdpass::PassError;
use sandbox::keeper_protocol::{CHILDREN_PER_REPLY_MAX, Reply, Request, read_sealed};
use sandbox::process::{Signal, pidfd_send_signal};
use sandbox::{Execution, Plan, launch_from};

use super::table::{Kept, measure};
use super::{Ending, Keeper, SUPERVISOR};

/// Requests of one client in a row before the loop looks at everything else again.
const REQUESTS_PER_TURN_MAX: usize = 32;

type Answer = Result<(Reply, Vec<OwnedFd>), String>;

fn plain(reply: Reply) -> Answer {
    Ok((reply, Vec::new()))
}

impl Keeper {
    /// Takes requests of a client while there are some and the answers find room.
    pub(super) fn serve(&mut self, client: usize) {
        for _ in 0..REQUESTS_PER_TURN_MAX {
            let Some(link) = self.links.get_mut(client) else { return };
            link.flush();
            if link.pending.is_some() {
                return;
            }
            let mut fds = Vec::new();
            let request = match link.channel.receive(&mut self.buffer, &mut fds) {
                Ok(length) => cbor::decode(self.buffer.get(..length).unwrap_or_default())
                    .map_err(|error| error.to_string()),
                // Its sender meant something by it and waits for an answer.
                Err(error @ PassError::Cut) => Err(error.to_string()),
                // Nothing there. The channel cannot close: the keeper holds both ends.
                Err(_) => return,
            };
            let answer = request.and_then(|request| self.answer(client, request, fds));
            let (reply, fds) = answer.unwrap_or_else(|why| (Reply::Refused(why), Vec::new()));
            if let Some(link) = self.links.get_mut(client) {
                link.send(&reply, fds);
            }
        }
    }

    fn answer(&mut self, client: usize, request: Request, mut fds: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Hello(nonce) => {
                self.table.tell_again(client);
                if let Some(link) = self.links.get_mut(client) {
                    link.told_of_shutdown = false;
                }
                plain(Reply::Hello(nonce))
            }
            Request::Store(name) => {
                let fd =
                    fds.pop().filter(|_| fds.is_empty()).ok_or("a store brings exactly one descriptor")?;
                self.table.store(client, &name, fd)?;
                plain(Reply::Stored)
            }
            Request::Fetch(name) => Ok((Reply::Fetched, vec![self.table.fetch(client, &name)?])),
            Request::Forget(name) => {
                self.table.forget(client, &name)?;
                plain(Reply::Forgotten)
            }
            Request::Launch { id, plan, stored } => self.launch(client, id, plan, &stored, fds),
            Request::Signal { id, signal } => self.signal(client, id, signal),
            Request::Run { id, command, run } => {
                self.table.find_mut(client, id)?.run(command, run)?;
                plain(Reply::Running)
            }
            Request::Execute { id, run, execution } => {
                Execution::decode(&execution).map_err(|error| error.to_string())?;
                let [input, output, error, token] = fds.as_slice() else {
                    return Err("an execution brings exactly four descriptors".to_owned());
                };
                let fds = [input, output, error, token].map(AsFd::as_fd);
                self.table.find_mut(client, id)?.execute(run, &execution, fds)?;
                plain(Reply::Running)
            }
            Request::EndExecuted { id, run } => {
                self.table.find(client, id)?.end_executed(run)?;
                plain(Reply::Signalled)
            }
            Request::EndCommand { id, command } => {
                self.table.find(client, id)?.end_command(command)?;
                plain(Reply::Signalled)
            }
            Request::Freeze { id, frozen } => {
                let group = self.table.find(client, id)?.group.as_ref().ok_or("the child has no cgroup")?;
                group.freeze(frozen).map_err(|error| format!("freezing child {id}: {error}"))?;
                plain(Reply::Frozen)
            }
            Request::Measure(id) => {
                let used = self.table.find(client, id)?.group.as_ref().map(measure);
                plain(Reply::Measured(used.unwrap_or_default()))
            }
            Request::List(after) => self.list(client, after),
            Request::Ack(id) => {
                self.table.acknowledge(client, id)?;
                plain(Reply::Acked)
            }
            Request::Shutdown if client == SUPERVISOR => {
                self.end(Ending::Shutdown);
                plain(Reply::ShuttingDown)
            }
            Request::Shutdown => Err("only the supervisor ends the node".to_owned()),
        }
    }

    fn launch(
        &mut self,
        client: usize,
        id: u64,
        plan: Option<Vec<u8>>,
        stored: &[String],
        mut fds: Vec<OwnedFd>,
    ) -> Answer {
        self.table.admits(client, id)?;
        if self.ending.is_some() {
            return Err("the node is ending".to_owned());
        }
        let bytes = match plan {
            Some(bytes) => bytes,
            None if fds.is_empty() => return Err("a launch without a plan".to_owned()),
            None => read_sealed(fds.remove(0).as_fd()).map_err(|error| error.to_string())?,
        };
        let mut slots =
            stored.iter().map(|name| self.table.fetch(client, name)).collect::<Result<Vec<_>, _>>()?;
        slots.append(&mut fds);
        let failed =
            |step: &str, errno, text| plain(Reply::LaunchFailed { id, step: step.to_owned(), errno, text });
        let plan = match Plan::decode(&bytes, slots.len()) {
            Ok(plan) => plan,
            Err(error) => return failed("check plan", invalid(), error.to_string()),
        };
        let group = if plan.disabled.contains(sandbox::Guard::Cgroup) {
            None
        } else {
            // A house without writable cgroups gives an empty group; the report says what stands in.
            let name = format!("{client}-{id}-{}", plan.label);
            match self.tree.group(&name, &plan.limits) {
                Ok(group) => Some(group),
                Err(error) => {
                    return failed(
                        "make cgroup",
                        error.raw_os_error().unwrap_or(0),
                        format!("{name}: {error}"),
                    );
                }
            }
        };
        match launch_from(&plan, &slots, &self.features, group.as_ref(), Some(self.parts)) {
            Ok(launched) => {
                let handle =
                    launched.pidfd.try_clone().map_err(|error| format!("duplicating a pidfd: {error}"));
                let kept = Kept::new(client, id, launched.pid, launched.pidfd, group)
                    .before(launched.program)
                    .settles_later(plan.before > 0 || plan.forks.is_some());
                let (pid, missing, enforced) = (kept.main_pid(), launched.missing, launched.enforced);
                let heard = kept.program().map_or(Ok(()), |program| self.inits.add(program, kept.pid));
                if heard.is_err() || handle.is_err() {
                    // It would be waited for in vain. Its end is told, and taken in as that of a stranger.
                    kept.kill_all();
                }
                self.table.add(kept);
                heard.map_err(|error| format!("listening to the init of child {id}: {error}"))?;
                Ok((Reply::Launched { id, pid, missing, enforced }, vec![handle?]))
            }
            Err(error) => {
                self.leftovers.extend(group);
                let (step, errno) = error.step_and_errno();
                failed(step, errno, error.to_string())
            }
        }
    }

    fn signal(&self, client: usize, id: u64, signal: i32) -> Answer {
        let kept = self.table.find(client, id)?;
        if !kept.is_running() {
            return Err(format!("the child {id} has ended"));
        }
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| format!("{signal} is not the number of a signal"))?;
        pidfd_send_signal(&kept.pidfd, signal).map_err(|error| format!("signalling child {id}: {error}"))?;
        plain(Reply::Signalled)
    }

    fn list(&self, client: usize, after: u64) -> Answer {
        let all = self.table.after(client, after);
        let mut fds = Vec::new();
        let mut children = Vec::with_capacity(all.len().min(CHILDREN_PER_REPLY_MAX));
        for kept in all.iter().take(CHILDREN_PER_REPLY_MAX) {
            if kept.is_running() {
                fds.push(kept.pidfd.try_clone().map_err(|error| format!("duplicating a pidfd: {error}"))?);
            }
            children.push(kept.as_child());
        }
        Ok((Reply::Children { children, more: all.len() > CHILDREN_PER_REPLY_MAX }, fds))
    }
}

/// The errno of a plan that means nothing.
fn invalid() -> i32 {
    rustix::io::Errno::INVAL.raw_os_error()
}
