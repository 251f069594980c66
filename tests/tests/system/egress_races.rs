//! A program that changes what it asked for while it is looked at: the address of a `connect`, or which socket a descriptor
//! is when it is connected or listens. None of these races is won; a filter that let the call go on would lose some.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use system_tests::{TestNode, within};

const PYTHON: &str = "/usr/bin/python3";
const PROGRAM: &str = include_str!("egress_races.py");
/// How often each is run.
const ROUNDS: &str = "20000";
/// A connect that is let out waits for the log. At night as often as the others (`EGRESS_RACES`).
const ROUNDS_ON_RECORD: &str = "2000";
const LIMIT: Duration = Duration::from_secs(60);

/// Closes what comes, and counts it.
fn counted() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counting = Arc::clone(&came);
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|_| {
            counting.fetch_add(1, Ordering::SeqCst);
        });
    });
    (place, came)
}

struct Race {
    node: TestNode,
    came: Arc<AtomicUsize>,
    came_to_the_other: Arc<AtomicUsize>,
    program: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Race {
    fn run(what: &str, rounds: &str) -> Option<Self> {
        if !Path::new(PYTHON).exists() {
            println!("skipped: no {PYTHON} (apt-get install python3)");
            return None;
        }
        let node = TestNode::boot()?;
        let ((allowed, came), (other, came_to_the_other)) = (counted(), counted());
        let (allowed, other) = (allowed.to_string(), other.to_string());
        let words =
            ["run", "--egress", &allowed, "--", PYTHON, "-c", PROGRAM, what, rounds, &allowed, &other];
        let mut command = node.command(&words);
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(program.stdout.take().unwrap());
        Some(Self { node, came, came_to_the_other, program, said })
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Nobody came where none was let out to, and no such place is on record.
    fn ends(mut self, let_out: usize) {
        drop(self.program.stdin.take());
        assert!(self.program.wait().unwrap().success());
        let came = || self.came.load(Ordering::SeqCst);
        assert!(within(LIMIT, || came() == let_out), "{let_out} were let out, and {} came", came());
        assert_eq!(self.came_to_the_other.load(Ordering::SeqCst), 0);
        assert_eq!(self.node.log(&["ConnectionAuthorize"]).len(), let_out);
    }
}

/// How many rounds ended so, of a line that counts them by how they ended.
fn count(line: &str, how: &str) -> usize {
    let (_, after) = line.split_once(&format!("'{how}': ")).unwrap_or(("", "0"));
    after.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn an_address_that_changes_while_it_is_read_leads_to_one_that_was_decided() {
    let rounds = std::env::var("EGRESS_RACES").unwrap_or_else(|_| ROUNDS_ON_RECORD.to_owned());
    let Some(mut race) = Race::run("address", &rounds) else { return };
    let line = race.next();
    println!("{line}");
    // Both were asked for, and what was let out is what came.
    let (done, refused) = (count(&line, "done"), count(&line, "Connection refused"));
    assert!(done > 0 && refused > 0, "{line}");
    race.ends(done);
}

#[test]
fn a_descriptor_that_becomes_a_socket_of_the_host_is_not_connected() {
    let Some(mut race) = Race::run("dup2", ROUNDS) else { return };
    let line = race.next();
    println!("{line}");
    assert!(line.starts_with("dup2 {"), "{line}");
    assert_eq!(race.next(), "reached nobody");
    race.ends(0);
}

#[test]
fn a_descriptor_that_becomes_a_socket_of_the_host_does_not_listen() {
    let Some(mut race) = Race::run("listen", ROUNDS) else { return };
    let line = race.next();
    println!("{line}");
    assert!(line.starts_with("listen {"), "{line}");
    let line = race.next();
    let port: u16 = line.strip_prefix("listens ").unwrap().parse().unwrap();
    let reached = port != 0 && TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(!reached, "it takes connections of the host at {port}");
    race.ends(0);
}
