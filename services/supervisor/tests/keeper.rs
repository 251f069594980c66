//! A real keeper with a supervisor that does what it is told.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::path::PathBuf;
    use std::process::{Child, ChildStdin, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process, test_kill_process};

    /// Nothing here takes a second; a test that hangs must not.
    const PATIENCE: Duration = Duration::from_secs(15);

    struct Keeper {
        process: Child,
        input: ChildStdin,
        lines: Receiver<String>,
        supervisor: i32,
    }

    impl Keeper {
        fn start(role: &str) -> Keeper {
            let mut process = Command::new(env!("CARGO_BIN_EXE_keeper_stage"))
                .args(["keeper", role])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (sender, lines) = channel();
            let output = BufReader::new(process.stdout.take().unwrap());
            std::thread::spawn(move || {
                output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
            let input = process.stdin.take().unwrap();
            let mut keeper = Keeper { process, input, lines, supervisor: 0 };
            if role == "supervisor" {
                keeper.greet();
            }
            keeper
        }

        /// Waits for a supervisor and says hello for it.
        fn greet(&mut self) {
            let line = self.expect("supervisor ");
            self.supervisor = line.rsplit(' ').next().unwrap().parse().unwrap();
            self.say("hello 7");
            self.expect("greeted");
        }

        fn say(&mut self, command: &str) {
            writeln!(self.input, "{command}").unwrap();
        }

        fn expect(&self, start: &str) -> String {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {start:?}"));
            assert!(line.starts_with(start), "{start:?} expected, not {line:?}");
            line
        }

        fn ask(&mut self, command: &str, start: &str) -> String {
            self.say(command);
            self.expect(start)
        }

        /// Launches and gives the pid.
        fn launch(&mut self, command: &str) -> i32 {
            let line = self.ask(command, "Launched");
            assert!(line.ends_with("fds 1"), "{line}");
            line.split("pid: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap()
        }

        fn pid(&self) -> i32 {
            self.process.id() as i32
        }

        fn signal(&self, signal: Signal) {
            kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
        }

        fn ended(&mut self) {
            assert!(within(|| self.process.try_wait().unwrap().is_some()), "the keeper did not end");
            assert_eq!(groups_of(self.pid()), Vec::<PathBuf>::new());
        }
    }

    impl Drop for Keeper {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            // A killed keeper cannot tidy up, and what died with it may take a moment.
            for _ in 0..200 {
                for tree in groups_of(self.pid()) {
                    for group in fs::read_dir(&tree).into_iter().flatten().flatten() {
                        let _ = fs::remove_dir(group.path());
                    }
                    let _ = fs::remove_dir(&tree);
                }
                if groups_of(self.pid()).is_empty() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The sub-trees that the keeper of this number made, below its own groups.
    fn groups_of(keeper: i32) -> Vec<PathBuf> {
        let name = format!("test-keeper-{keeper}");
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.ends_with(&name) {
                    found.push(path);
                } else if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
        found
    }

    fn lives(pid: i32) -> bool {
        // A zombie answers too; its state tells.
        let running = |text: String| !text.contains("State:\tZ");
        test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
            && fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(running)
    }

    fn gone(pid: i32) {
        assert!(within(|| !lives(pid)), "{pid} still lives");
    }

    fn within(mut is_so: impl FnMut() -> bool) -> bool {
        sandbox::wait_for(PATIENCE, Duration::from_millis(5), || is_so().then_some(())).is_some()
    }

    #[test]
    fn an_exit_is_kept_until_it_is_acknowledged() {
        let mut keeper = Keeper::start("supervisor");
        let pid = keeper.launch("launch 1 exit 7");
        let told = keeper.ask("wait", "Exited { id: 1");
        assert!(told.contains("Code(7)"), "{told}");
        gone(pid);
        for _ in 0..2 {
            assert!(keeper.ask("list", "Children").contains("Code(7)"));
        }
        keeper.ask("launch 1 exit 0", "Refused");
        keeper.ask("ack 1", "Acked");
        assert_eq!(keeper.ask("list", "Children"), "Children { children: [], more: false } fds 0");
        keeper.ask("ack 1", "Refused");
        keeper.ask("signal 1 9", "Refused");
        keeper.ask("shutdown", "ShuttingDown");
        keeper.say("quit");
        keeper.expect("ending Shutdown");
        keeper.ended();
    }

    /// covers: SUP-80
    #[test]
    fn a_killed_supervisor_is_replaced_and_its_children_do_not_notice() {
        let mut keeper = Keeper::start("supervisor");
        let child = keeper.launch("launch 5 exec sleep 60");
        keeper.ask("store edge:keys", "Stored");
        let short = keeper.launch("launch 6 exit 3");
        gone(short);
        let before = keeper.supervisor;
        kill_process(Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
        keeper.greet();
        assert_ne!(keeper.supervisor, before);
        // What was meant for the dead one is dropped by the greeting; what is unacknowledged is said again.
        assert!(keeper.ask("wait", "Exited { id: 6").contains("Code(3)"));
        let list = keeper.ask("list", "Children");
        assert!(
            list.contains(&format!("id: 5, pid: {child}, exit: None")) && list.ends_with("fds 1"),
            "{list}"
        );
        assert!(keeper.ask("fetch edge:keys", "Fetched").ends_with("fds 1"));
        assert!(lives(child));
        keeper.ask("signal 5 15", "Signalled");
        assert!(keeper.ask("wait", "Exited { id: 5").contains("Signal(15)"));
        keeper.ask("shutdown", "ShuttingDown");
        keeper.say("quit");
        keeper.expect("ending Shutdown");
        keeper.ended();
    }

    fn kill(pid: i32, signal: &str) {
        assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
    }

    fn parent(pid: i32) -> i32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.unwrap().trim().parse().unwrap()
    }

    /// What a person sees and ends is the program; what they send to its init reaches it all the same.
    #[test]
    fn a_program_behind_an_init_has_its_own_number_its_signals_and_its_end() {
        let mut keeper = Keeper::start("supervisor");
        let script = "trap 'exit 7' USR1; trap 'exit 9' 40; while :; do sleep 0.02; done";
        let read = |pid: i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        for (id, signal, end) in [(1, "10", "Code(7)"), (2, "40", "Code(9)"), (3, "TERM", "Signal(15)")] {
            let pid = keeper.launch(&format!("behind {id} {script}"));
            let init = parent(pid);
            assert!(read(pid, "cmdline").starts_with("sh\0-c\0trap"));
            assert_eq!(read(init, "comm").trim(), "bailiwick-init");
            // As much of it as the keeper's own arguments have room for.
            let shown = read(init, "cmdline");
            assert!(shown.starts_with("bailiwick process init"), "{shown}");
            assert_eq!(parent(init), keeper.pid());
            // The traps are set once it sleeps.
            assert!(within(|| !read(pid, &format!("task/{pid}/children")).is_empty()));
            kill(init, signal);
            assert!(keeper.ask("wait", &format!("Exited {{ id: {id}")).contains(end), "{signal}");
        }
        let pid = keeper.launch("behind 4 exec sleep 60");
        kill(pid, "KILL");
        assert!(keeper.ask("wait", "Exited { id: 4").contains("Signal(9)"));
        let pid = keeper.launch("behind 5 exec sleep 60");
        kill(parent(pid), "KILL");
        assert!(keeper.ask("wait", "Exited { id: 5").contains("Signal(9)"));
        gone(pid);
    }

    #[test]
    fn how_a_program_behind_an_init_ended_outlives_the_supervisor() {
        let mut keeper = Keeper::start("supervisor");
        let pid = keeper.launch("behind 1 exec sleep 60");
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        keeper.greet();
        assert!(keeper.ask("list", "Children").contains(&format!("id: 1, pid: {pid}, exit: None")));
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        kill(pid, "TERM");
        gone(pid);
        keeper.greet();
        assert!(keeper.ask("wait", "Exited { id: 1").contains("Signal(15)"));
        assert!(keeper.ask("list", "Children").contains(&format!("id: 1, pid: {pid}")));
    }

    #[test]
    fn a_daemon_is_the_child_whose_commands_run_each_once_at_a_time() {
        let mut keeper = Keeper::start("supervisor");
        keeper.launch("daemon 1 sleep 60 & exit 0");
        let settled = keeper.ask("wait", "Settled { id: 1");
        let daemon: i32 = settled.split("pid: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        // It is the shell's fork until it has executed.
        let shown = || fs::read_to_string(format!("/proc/{daemon}/cmdline")).unwrap();
        assert!(within(|| shown().starts_with("sleep")), "{}", shown());
        keeper.ask("run 1 0", "Running");
        assert!(keeper.ask("wait", "Done { id: 1, command: 0").contains("Code(3)"));
        keeper.ask("run 1 1", "Running");
        assert!(keeper.ask("run 1 1", "Refused").contains("runs already"));
        keeper.ask("run 1 0", "Running");
        assert!(keeper.ask("wait", "Done { id: 1, command: 0").contains("Code(3)"));
        keeper.ask("run 1 2", "Running");
        assert!(keeper.ask("run 1 0", "Refused").contains("2 commands run already"));
        // With what it has started; the other goes on.
        keeper.ask("end 1 1", "Signalled");
        assert!(keeper.ask("wait", "Done { id: 1, command: 1").contains("Signal(9)"));
        keeper.ask("run 1 0", "Running");
        assert!(keeper.ask("wait", "Done { id: 1, command: 0").contains("Code(3)"));
        keeper.ask("end 1 0", "Signalled");
        assert!(keeper.ask("end 2 0", "Refused").contains("no child"));
        assert!(keeper.ask("run 2 0", "Refused").contains("no child"));
        // The next supervisor is told who the program is.
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        keeper.greet();
        assert!(keeper.ask("list", "Children").contains(&format!("id: 1, pid: {daemon}, exit: None")));
        kill(daemon, "TERM");
        assert!(keeper.ask("wait", "Exited { id: 1").contains("Signal(15)"));
        assert!(keeper.ask("run 1 0", "Refused").contains("runs"));
        keeper.launch("behind 2 exec sleep 60");
        // One that was never laid down is not run, and the child is none the worse.
        keeper.ask("run 2 0", "Running");
        keeper.ask("signal 2 15", "Signalled");
        assert!(keeper.ask("wait", "Exited { id: 2").contains("Signal(15)"));
    }

    #[test]
    fn what_was_executed_beside_a_child_ends_with_the_supervisor_that_asked_and_is_told_to_no_other() {
        let mut keeper = Keeper::start("supervisor");
        let program = keeper.launch("behind 1 exec sleep 60");
        keeper.ask("execute 1 exit 5", "Running");
        assert!(keeper.ask("wait", "Done { id: 1").contains("Code(5)"));
        keeper.ask("execute 1 sleep 86396.25; exit 6", "Running");
        let words = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let sleeps = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            all.map(|entry| words(&entry.file_name().to_string_lossy())).any(|it| it == "sleep\086396.25\0")
        };
        assert!(within(sleeps));
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        assert!(within(|| !sleeps()), "before there is another");
        keeper.greet();
        keeper.ask("execute 1 exit 7", "Running");
        assert!(keeper.ask("wait", "Done { id: 1").contains("Code(7)"));
        assert!(keeper.ask("execute 2 exit 0", "Refused").contains("no child"));
        assert!(lives(program));
        // One without an init has nobody who could.
        keeper.launch("launch 3 exec sleep 60");
        assert!(keeper.ask("execute 3 exit 0", "Refused").contains("runs no commands"));
        keeper.ask("end-executed 1 99", "Signalled");
    }

    /// An init that stands still starts nothing afterwards that was given up meanwhile.
    #[test]
    fn what_was_given_up_before_the_init_came_to_it_never_runs() {
        let mut keeper = Keeper::start("supervisor");
        let folder = tempfile::tempdir().unwrap();
        let mark = |name: &str| folder.path().join(name);
        let program = keeper.launch("behind 1 exec sleep 60");
        let init = parent(program);
        for (name, given_up) in [("given-up", true), ("kept", false)] {
            kill(init, "STOP");
            keeper.ask(&format!("execute 1 touch {}", mark(name).display()), "Running");
            if given_up {
                assert_eq!(keeper.ask("give-up", "withdrawn"), "withdrawn true");
            }
            kill(init, "CONT");
            let end = keeper.ask("wait", "Done { id: 1");
            assert!(end.contains(if given_up { "Code(126)" } else { "Code(0)" }), "{end}");
            assert_eq!(mark(name).exists(), !given_up, "{name}");
        }
        assert_eq!(keeper.ask("give-up", "withdrawn"), "withdrawn false", "it has run");
        // And with whoever asked.
        kill(init, "STOP");
        keeper.ask(&format!("execute 1 touch {}", mark("orphan").display()), "Running");
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        keeper.greet();
        kill(init, "CONT");
        keeper.ask("execute 1 exit 7", "Running");
        assert!(keeper.ask("wait", "Done { id: 1").contains("Code(7)"));
        assert!(!mark("orphan").exists());
    }

    /// A supervisor that takes over must not take a command before the program for the program.
    #[test]
    fn the_next_supervisor_is_told_whether_the_program_is_there() {
        let mut keeper = Keeper::start("supervisor");
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
        let command = keeper.launch(&format!("after 1 {wait}"));
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        keeper.greet();
        let list = keeper.ask("list", "Children");
        assert!(list.contains(&format!("pid: {command}, exit: None, settled: false")), "{list}");
        fs::write(&go, "").unwrap();
        keeper.ask("wait", "Done { id: 1, command: 0");
        let settled = keeper.ask("wait", "Settled { id: 1");
        let program: i32 = settled.split("pid: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_ne!(program, command);
        kill_process(Pid::from_raw(keeper.supervisor).unwrap(), Signal::KILL).unwrap();
        keeper.greet();
        let list = keeper.ask("list", "Children");
        assert!(list.contains(&format!("pid: {program}, exit: None, settled: true")), "{list}");
    }

    #[test]
    fn orphans_come_to_the_keeper_and_end_with_it() {
        let mut keeper = Keeper::start("supervisor");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        keeper.launch(&format!("loose 1 sleep 60 & echo $! > {}; exit 0", file.display()));
        keeper.ask("wait", "Exited { id: 1");
        let orphan: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let status = fs::read_to_string(format!("/proc/{orphan}/status")).unwrap();
        assert!(status.contains(&format!("PPid:\t{}\n", keeper.pid())), "{status}");
        kill_process(Pid::from_raw(orphan).unwrap(), Signal::KILL).unwrap();
        let reaped = || !fs::exists(format!("/proc/{orphan}")).unwrap();
        assert!(within(reaped), "the orphan was not reaped");
    }

    #[test]
    fn children_die_with_the_keeper() {
        let mut keeper = Keeper::start("supervisor");
        let child = keeper.launch("launch 1 exec sleep 60");
        keeper.signal(Signal::KILL);
        gone(child);
        gone(keeper.supervisor);
    }

    #[test]
    fn the_first_sigterm_is_handed_on_and_the_second_ends_everything() {
        let mut keeper = Keeper::start("supervisor");
        let child = keeper.launch("launch 1 exec sleep 60");
        keeper.signal(Signal::TERM);
        keeper.ask("wait", "ShutdownRequested");
        assert!(lives(child));
        keeper.signal(Signal::TERM);
        keeper.expect("ending Forced");
        gone(child);
        keeper.ended();
    }

    #[test]
    fn the_second_client_sees_only_its_own_and_cannot_end_the_node() {
        let mut keeper = Keeper::start("supervisor");
        keeper.launch("launch 1 exec sleep 60");
        keeper.ask("store secret", "Stored");
        keeper.ask("programs", "switched");
        assert_eq!(keeper.ask("list", "Children"), "Children { children: [], more: false } fds 0");
        keeper.ask("fetch secret", "Refused");
        keeper.ask("signal 1 9", "Refused");
        keeper.ask("shutdown", "Refused");
        keeper.launch("launch 1 exit 4");
        assert!(keeper.ask("wait", "Exited { id: 1").contains("Code(4)"));
    }

    #[test]
    fn failures_name_their_step_and_large_plans_arrive() {
        let mut keeper = Keeper::start("supervisor");
        let failed = keeper.ask("broken 1", "LaunchFailed");
        assert!(failed.contains("open executable") && failed.contains("errno: 2"), "{failed}");
        keeper.launch("large 2 exit ${#LARGE}");
        assert!(keeper.ask("wait", "Exited { id: 2").contains("Code(160)"), "100 000 modulo 256");
        keeper.launch("launch 3 exec sleep 60");
        keeper.ask("measure 3", "Measured");
        keeper.ask("shutdown", "ShuttingDown");
        keeper.say("quit");
        keeper.expect("ending Shutdown");
        keeper.ended();
    }

    #[test]
    fn a_supervisor_that_keeps_dying_is_given_up() {
        let mut keeper = Keeper::start("dies");
        keeper.expect("ending SupervisorLost");
        keeper.ended();
    }
}
