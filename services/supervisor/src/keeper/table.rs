//! What the keeper remembers: children and stored descriptors, each of one client. Fixed capacity. What runs beside a child is
//! in `beside.rs`.

use std::os::fd::{BorrowedFd, OwnedFd};

use sandbox::cgroup::Group;
use sandbox::keeper_protocol::{Child, Exit, GroupUsage, NAME_BYTES_MAX, Reply};
use sandbox::process::{Reaped, Signal, pidfd_send_signal};
use sandbox::{Program, Told};

use super::beside::Beside;
use super::{CHILDREN_MAX, STORED_MAX};

/// One child, from its launch until its exit is acknowledged.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) client: usize,
    pub(super) id: u64,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// What stands behind the child, if that is an init.
    program: Option<Program>,
    pub(super) group: Option<Group>,
    exit: Option<Exit>,
    told: bool,
    stays: Stays,
    beside: Beside,
}

/// Whether the process that is known is the one that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    /// Something comes before it, or it leaves a daemon.
    NotYet,
    /// It is, and nobody was told.
    Untold,
    Settled,
}

impl Kept {
    pub(super) fn new(client: usize, id: u64, pid: i32, pidfd: OwnedFd, group: Option<Group>) -> Kept {
        Kept {
            client,
            id,
            pid,
            pidfd,
            program: None,
            group,
            exit: None,
            told: false,
            stays: Stays::Settled,
            beside: Beside::default(),
        }
    }

    pub(super) fn before(self, program: Option<Program>) -> Kept {
        Kept { program, ..self }
    }

    /// Commands come before its program, or a daemon after it.
    pub(super) fn settles_later(self, later: bool) -> Kept {
        Kept { stays: if later { Stays::NotYet } else { Stays::Settled }, ..self }
    }

    /// The process that somebody means who speaks of this child.
    pub(super) fn main_pid(&self) -> i32 {
        self.program.as_ref().map_or(self.pid, |program| program.pid)
    }

    pub(super) fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    /// The init's channel, to be looked at when it has something to say.
    pub(super) fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// Takes down what the init says.
    fn hear(&mut self) {
        while let Some(told) = self.program.as_mut().and_then(Program::hear) {
            match told {
                Told::Settled => self.stays = Stays::Untold,
                Told::Done { command, status } => self.beside.done(command, status),
            }
        }
    }

    fn init(&self) -> Result<&Program, String> {
        let program = self.program.as_ref().filter(|_| self.exit.is_none());
        program.ok_or_else(|| format!("the child {} runs no commands", self.id))
    }

    fn asked(&self, result: std::io::Result<()>) -> Result<(), String> {
        result.map_err(|error| format!("asking the init of child {}: {error}", self.id))
    }

    pub(super) fn run(&mut self, command: u8, run: u64) -> Result<(), String> {
        self.beside.admits(command, run)?;
        self.asked(self.init()?.run(command))?;
        self.beside.runs(command, run);
        Ok(())
    }

    pub(super) fn end_command(&self, command: u8) -> Result<(), String> {
        self.asked(self.init()?.end(command))
    }

    pub(super) fn execute(
        &mut self,
        run: u64,
        execution: &[u8],
        fds: [BorrowedFd<'_>; 4],
    ) -> Result<(), String> {
        if self.stays == Stays::NotYet {
            return Err(format!("the program of child {} is not there yet", self.id));
        }
        let place = self.beside.free_place(run)?;
        self.asked(self.init()?.execute(place, execution, fds))?;
        self.beside.executes(place, run);
        Ok(())
    }

    /// One that has ended already is what is wanted.
    pub(super) fn end_executed(&self, run: u64) -> Result<(), String> {
        self.beside.place_of(run).map_or(Ok(()), |place| self.end_command(place))
    }

    /// Whoever asked for it has gone, and nobody is told of its end.
    fn forget_executed(&mut self) {
        for place in self.beside.forget_executed().into_iter().flatten() {
            // An init that cannot be asked is about to end, and all that it stands before with it.
            let _ = self.end_command(place);
        }
    }

    /// The next thing to tell of it, in the order in which it happened.
    fn next_untold(&mut self) -> Option<Reply> {
        let id = self.id;
        if let Some((command, run, status)) = self.beside.next_untold() {
            return Some(Reply::Done { id, command, status, run });
        }
        if self.stays == Stays::Untold {
            self.stays = Stays::Settled;
            return Some(Reply::Settled { id, pid: self.main_pid() });
        }
        let exit = self.exit.filter(|_| !self.told)?;
        self.told = true;
        Some(Reply::Exited { id, exit })
    }

    pub(super) fn as_child(&self) -> Child {
        let settled = self.stays != Stays::NotYet;
        Child { id: self.id, pid: self.main_pid(), exit: self.exit, settled }
    }

    /// The child and whatever shares its group.
    pub(super) fn kill_all(&self) {
        // Already gone is what is wanted, and a failure shows: the keeper does not end before its children.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(group) = &self.group {
            let _ = group.kill();
        }
    }
}

pub(super) fn measure(group: &Group) -> GroupUsage {
    GroupUsage {
        memory_bytes: group.memory_bytes().unwrap_or(0),
        memory_peak_bytes: group.memory_peak_bytes().unwrap_or(0),
        oom_kills: group.oom_kills().unwrap_or(0),
        cpu_time_us: group.cpu_time_us().unwrap_or(0),
        processes: group.processes().map_or(0, |processes| processes.len() as u64),
    }
}

struct Stored {
    client: usize,
    name: String,
    fd: OwnedFd,
}

/// Both tables are short and searched from the front: a thousand entries take a microsecond.
pub(super) struct Table {
    children: Vec<Kept>,
    stored: Vec<Stored>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { children: Vec::with_capacity(CHILDREN_MAX), stored: Vec::with_capacity(2 * STORED_MAX) }
    }

    pub(super) fn store(&mut self, client: usize, name: &str, fd: OwnedFd) -> Result<(), String> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("the name has {} bytes, allowed are 1 to {NAME_BYTES_MAX}", name.len()));
        }
        if let Some(stored) = self.stored.iter_mut().find(|one| one.client == client && one.name == name) {
            stored.fd = fd;
            return Ok(());
        }
        if self.stored.iter().filter(|one| one.client == client).count() >= STORED_MAX {
            return Err(format!("{STORED_MAX} descriptors are stored already; forget one first"));
        }
        self.stored.push(Stored { client, name: name.to_owned(), fd });
        Ok(())
    }

    pub(super) fn fetch(&self, client: usize, name: &str) -> Result<OwnedFd, String> {
        let stored = self.stored.iter().find(|one| one.client == client && one.name == name);
        let stored = stored.ok_or_else(|| format!("no descriptor is stored as {name:?}"))?;
        stored.fd.try_clone().map_err(|error| format!("duplicating the descriptor {name:?}: {error}"))
    }

    pub(super) fn forget(&mut self, client: usize, name: &str) -> Result<(), String> {
        let at = self.stored.iter().position(|one| one.client == client && one.name == name);
        self.stored.swap_remove(at.ok_or_else(|| format!("no descriptor is stored as {name:?}"))?);
        Ok(())
    }

    /// Whether this client may have one more child of this id.
    pub(super) fn admits(&self, client: usize, id: u64) -> Result<(), String> {
        if self.find(client, id).is_ok() {
            return Err(format!("the id {id} is in use; acknowledge its exit first"));
        }
        if self.children.len() >= CHILDREN_MAX {
            return Err(format!(
                "{CHILDREN_MAX} children are kept already, ended ones until they are acknowledged"
            ));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, kept: Kept) {
        self.children.push(kept);
    }

    pub(super) fn find(&self, client: usize, id: u64) -> Result<&Kept, String> {
        let found = self.children.iter().find(|one| one.client == client && one.id == id);
        found.ok_or_else(|| format!("no child has the id {id}"))
    }

    /// Children of a client above an id, lowest first.
    pub(super) fn after(&self, client: usize, id: u64) -> Vec<&Kept> {
        let mut list: Vec<&Kept> =
            self.children.iter().filter(|one| one.client == client && one.id > id).collect();
        list.sort_unstable_by_key(|kept| kept.id);
        list
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Kept> {
        self.children.iter().filter(|one| one.is_running())
    }

    /// Takes the exit down; the group comes back to be removed.
    pub(super) fn record_exit(&mut self, reaped: &Reaped) -> Option<Group> {
        let kept = self.children.iter_mut().find(|one| one.pid == reaped.pid && one.is_running())?;
        let group = kept.group.take();
        let used = group.as_ref().map(measure).unwrap_or_default();
        kept.hear();
        let status = kept.program.as_mut().and_then(Program::ended).unwrap_or(reaped.status);
        kept.exit = Some(Exit { status, usage: reaped.usage, group: used });
        group
    }

    /// The next thing that this client has not been told of; it counts as told from now on.
    pub(super) fn next_untold(&mut self, client: usize) -> Option<Reply> {
        self.children.iter_mut().filter(|one| one.client == client).find_map(Kept::next_untold)
    }

    /// The init of this number has something to say. One that has ended was heard when it was reaped.
    pub(super) fn hear(&mut self, pid: i32) {
        if let Some(kept) = self.children.iter_mut().find(|one| one.pid == pid && one.is_running()) {
            kept.hear();
        }
    }

    pub(super) fn find_mut(&mut self, client: usize, id: u64) -> Result<&mut Kept, String> {
        let found = self.children.iter_mut().find(|one| one.client == client && one.id == id);
        found.ok_or_else(|| format!("no child has the id {id}"))
    }

    /// A new client on the channel: it is told again.
    pub(super) fn tell_again(&mut self, client: usize) {
        self.children.iter_mut().filter(|one| one.client == client).for_each(|one| one.told = false);
        self.forget_executed(client);
    }

    /// What this client had executed ends with it.
    pub(super) fn forget_executed(&mut self, client: usize) {
        self.children.iter_mut().filter(|one| one.client == client).for_each(Kept::forget_executed);
    }

    pub(super) fn acknowledge(&mut self, client: usize, id: u64) -> Result<(), String> {
        if self.find(client, id)?.is_running() {
            return Err(format!("the child {id} has not ended"));
        }
        self.children.retain(|one| one.client != client || one.id != id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn clients_see_only_their_own_and_limits_hold() {
        super::super::raise_descriptor_limit();
        let mut table = Table::new();
        for n in 0..STORED_MAX {
            table.store(0, &n.to_string(), fd()).unwrap();
        }
        assert!(table.store(0, "one more", fd()).is_err());
        table.store(0, "0", fd()).unwrap();
        table.store(1, "x", fd()).unwrap();
        assert!(table.fetch(0, "x").is_err());
        assert!(table.fetch(1, "0").is_err());
        assert!(table.fetch(1, "x").is_ok());
        table.forget(0, "7").unwrap();
        table.store(0, "one more", fd()).unwrap();
        assert!(table.store(1, &"n".repeat(NAME_BYTES_MAX), fd()).is_ok());
        assert!(table.store(1, &"n".repeat(NAME_BYTES_MAX + 1), fd()).is_err());
    }

    #[test]
    fn an_exit_is_kept_until_acknowledged_and_told_again_to_a_new_client() {
        let mut table = Table::new();
        table.add(Kept::new(0, 5, 77, fd(), None));
        assert!(table.admits(0, 5).is_err());
        assert!(table.admits(1, 5).is_ok());
        assert!(table.acknowledge(0, 5).is_err());
        let status = sandbox::process::ExitStatus::Code(3);
        let reaped = Reaped { pid: 77, status, usage: Default::default() };
        assert!(table.record_exit(&reaped).is_none());
        assert_eq!(table.next_untold(1), None);
        assert!(matches!(table.next_untold(0), Some(Reply::Exited { id: 5, exit }) if exit.status == status));
        assert_eq!(table.next_untold(0), None);
        table.tell_again(0);
        assert!(table.next_untold(0).is_some());
        table.acknowledge(0, 5).unwrap();
        assert!(table.find(0, 5).is_err());
    }
}
