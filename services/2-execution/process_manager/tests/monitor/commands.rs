//! Commands beside a program, run by its monitor.

use std::time::Duration;

use chain::payload::process::ExitStatus;
use process_manager::{
    core::{Execution, WindowSize},
    monitor::protocol::{Reply, Request, Stream},
};

use super::common::{Control, Held, House, keepers};

/// What of a process says how it is confined, one line each.
const CONFINED: &str = "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Seccomp_filters):' \
                        /proc/self/status; cat /proc/self/cgroup; ulimit -a; readlink /proc/self/ns/*";

fn command(words: &[&str]) -> Execution {
    Execution {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        cwd: None,
        terminal: None,
        timeout_ms: 0,
    }
}

fn shell(text: &str) -> Execution {
    command(&["sh", "-c", text])
}

/// A started program that says `ready` and stays; its first line was read.
fn staying(house: &mut House, id: u64, prepare: &str) -> (Held, Control) {
    let request = house.script(&format!("{prepare}\necho ready\nexec sleep 1000"));
    let held = house.hold(id, request);
    let mut control = held.connect();
    assert_eq!(control.call(&Request::Release), Reply::Started);
    let mut text = String::new();
    while !text.ends_with("ready\n") {
        let (_, data, end) = control.read(Stream::Stdout, text.len() as u64);
        assert!(!end, "{text}");
        text.push_str(&String::from_utf8(data).unwrap());
    }
    (held, control)
}

fn start(held: &Held, execution: Execution) -> Control {
    let mut control = held.connect();
    assert_eq!(control.execute(&execution), Reply::Started);
    control
}

fn end(control: &mut Control) -> (ExitStatus, bool) {
    match control.call(&Request::Wait) {
        Reply::Executed { status, with_program, .. } => (status, with_program),
        other => panic!("{other:?}"),
    }
}

fn run(held: &Held, execution: Execution) -> (String, String, ExitStatus) {
    let mut control = start(held, execution);
    let (out, err) = (control.read_all(Stream::Stdout), control.read_all(Stream::Stderr));
    (out, err, end(&mut control).0)
}

#[test]
fn a_command_is_where_the_program_is_and_may_do_no_more() {
    for who in keepers() {
        let mut house = House::new(*who);
        let prepare =
            format!("echo here > /run/mark; echo mine > /tmp/mark; {{ {CONFINED}; }} > /tmp/confined");
        let (held, _control) = staying(&mut house, 1, &prepare);
        let (out, err, status) =
            run(&held, shell("cat /run/mark /tmp/mark; echo $$ >&2; tr '\\0' ' ' < /proc/2/cmdline"));
        assert_eq!((out.as_str(), status), ("here\nmine\nsleep 1000 ", ExitStatus::Code(0)), "{err}");
        assert!(
            err.trim().parse::<u32>().is_ok_and(|pid| pid > 2),
            "a number of the program's namespace: {err}"
        );
        let (same, _, _) = run(
            &held,
            shell(&format!("{{ {CONFINED}; }} > /run/now; diff /tmp/confined /run/now && cat /run/now")),
        );
        assert!(
            same.contains("NoNewPrivs:\t1\nSeccomp:\t2") && same.contains("CapEff:\t0000000000000000"),
            "{same}"
        );
        for (what, code) in [("cat /etc/shadow", 1), ("mount -t tmpfs x /tmp", 32), ("echo x > /usr/x", 2)] {
            let (_, err, status) = run(&held, shell(what));
            assert!(status != ExitStatus::Code(0) && !err.is_empty(), "{what}: {status:?}, usually {code}");
        }
    }
}

#[test]
fn a_command_has_its_own_streams_input_and_end() {
    let mut house = House::new(keepers()[0]);
    let (held, mut program) = staying(&mut house, 1, "");
    let mut control = start(&held, shell("cat; echo done >&2; exit 7"));
    assert_eq!(control.call(&Request::Stdin(b"typed".to_vec())), Reply::Done);
    assert_eq!(control.read(Stream::Stdout, 0), (0, b"typed".to_vec(), false));
    assert_eq!(control.call(&Request::StdinEnd), Reply::Done);
    assert_eq!(control.read_all(Stream::Stderr), "done\n");
    assert_eq!(end(&mut control), (ExitStatus::Code(7), false));
    let (size, mut with_terminal) = (WindowSize { rows: 11, columns: 33 }, command(&["stty", "size"]));
    with_terminal.terminal = Some(size);
    with_terminal.env = vec![("A".to_owned(), "b".to_owned())];
    assert_eq!(run(&held, with_terminal).0, "11 33\r\n");
    let mut elsewhere = shell("pwd; echo $A");
    elsewhere.cwd = Some("/tmp".to_owned());
    elsewhere.env = vec![("A".to_owned(), "b".to_owned())];
    assert_eq!(run(&held, elsewhere).0, "/tmp\nb\n");
    // What a command leaves behind keeps its pipes open and no reader waiting.
    // It may go on: what answers the calls that its filter shows is still there.
    assert_eq!(run(&held, shell("sleep 1000 & echo left")).0, "left\n");
    let seen = run(&held, shell("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done")).0;
    assert_eq!(program.status().threads, 2, "the program and what the command left: {seen}");
}

#[test]
fn what_cannot_be_run_is_said_and_nothing_runs() {
    let mut house = House::new(keepers()[0]);
    let request = house.script("exec sleep 1000");
    let held = house.hold(1, request);
    let mut program = held.connect();
    let refused = |held: &Held, execution: Execution| held.connect().execute(&execution);
    assert!(matches!(refused(&held, shell("true")), Reply::Refused(text) if text.contains("does not run")));
    program.call(&Request::Release);
    let absent = refused(&held, command(&["no-such-command"]));
    assert!(
        matches!(absent, Reply::StartFailed { ref step, errno: 2, .. } if step == "open executable"),
        "{absent:?}"
    );
    let mut outside = shell("pwd");
    // A descriptor that the monitor holds is no place of the sandbox.
    for folder in ["/proc/self/fd/3", "/no/such/folder"] {
        outside.cwd = Some(folder.to_owned());
        assert!(
            matches!(refused(&held, outside.clone()), Reply::StartFailed { ref step, .. } if step == "enter working directory")
        );
    }
    program.call(&Request::Signal(19));
    assert!(matches!(refused(&held, shell("true")), Reply::Refused(text) if text.contains("suspended")));
    program.call(&Request::Signal(18));
    let running: Vec<Control> = (0..8).map(|_| start(&held, command(&["sleep", "1000"]))).collect();
    assert!(matches!(refused(&held, shell("true")), Reply::Refused(text) if text.contains("8 commands")));
    drop(running);
    // Their places are free once the monitor has seen that nobody is there.
    assert!(until(|| held.connect().execute(&shell("true")) == Reply::Started));
}

#[test]
fn a_command_ends_with_its_caller_its_time_and_its_program() {
    let mut house = House::new(keepers()[0]);
    let (held, mut program) = staying(&mut house, 1, "");
    let gone = start(&held, shell("sleep 1000 & sleep 1000"));
    assert!(until(|| program.status().threads == 4), "a shell and two: {}", program.status().threads);
    drop(gone);
    assert!(until(|| program.status().threads == 1), "all of it goes with its caller");
    let mut limited = shell("sleep 1000");
    limited.timeout_ms = 100;
    assert_eq!(run(&held, limited).2, ExitStatus::Limit("wall_time".to_owned()));
    let mut beside = start(&held, command(&["sleep", "1000"]));
    program.call(&Request::Signal(9));
    assert_eq!(end(&mut beside), (ExitStatus::Signal(9), true));
    assert_eq!(program.wait().status, ExitStatus::Signal(9));
    assert!(matches!(held.connect().execute(&shell("true")), Reply::Refused(_)));
}

fn until(mut is_so: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// What is on record as given up does not run, however late its monitor comes to it.
#[test]
fn a_command_that_was_given_up_while_its_monitor_stood_still_never_starts() {
    for keeper in keepers() {
        let mut house = House::new(*keeper);
        let (held, _control) = staying(&mut house, 1, ":");
        let monitor = rustix::process::Pid::from_raw(held.pid).unwrap();
        let signal = |signal| rustix::process::kill_process(monitor, signal).unwrap();
        let ran = |name: &str| run(&held, shell(&format!("test -e /tmp/{name}; echo $?"))).0 == "0\n";
        signal(rustix::process::Signal::STOP);
        let mut withdrawn = held.connect();
        let token = withdrawn.ask(&shell("touch /tmp/withdrawn"));
        assert!(token.withdraw(), "{keeper:?}: nobody has it yet");
        // Whoever asked for this one has died.
        let mut forgotten = held.connect();
        drop(forgotten.ask(&shell("touch /tmp/forgotten")));
        let mut waited = held.connect();
        let token = waited.ask(&shell("touch /tmp/waited"));
        signal(rustix::process::Signal::CONT);
        for control in [&mut withdrawn, &mut forgotten] {
            assert!(matches!(control.answer(), Reply::Refused(_)), "{keeper:?}");
        }
        assert_eq!(waited.answer(), Reply::Started);
        assert!(!token.withdraw());
        assert_eq!(end(&mut waited), (ExitStatus::Code(0), false));
        assert!(ran("waited") && !ran("withdrawn") && !ran("forgotten"), "{keeper:?}");
    }
}
