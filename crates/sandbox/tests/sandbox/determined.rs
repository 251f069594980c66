//! Jobs: what they may do, what ends them, and that every run sees the same.

use sandbox::seccomp::Profile;
use sandbox::{Namespaces, Plan, Seccomp, Sockets};

use crate::common::{As, launchers, line, probe, run};

fn job(words: &str) -> Plan {
    let mut plan = probe(words);
    plan.namespaces = Namespaces::ALL;
    plan.deterministic = true;
    plan.seccomp = Some(Seccomp { profile: Profile::Job, sockets: Sockets::default(), notify: Vec::new() });
    plan
}

/// covers: ACT-37, ACT-47
#[test]
fn what_is_not_declared_ends_the_job_and_is_named() {
    for launcher in launchers() {
        for (words, call) in [
            ("clock", "clock_gettime"),
            ("random", "getrandom"),
            ("thread", "clone"),
            ("socket 2", "socket"),
            ("mount", "mount"),
            ("kill 1", "kill"),
            ("host_name", "uname"),
        ] {
            // The C library asks for random bytes before it hands out memory.
            let declared: &[&str] = if call == "getrandom" { &[] } else { &["seed"] };
            let text = run(*launcher, &job(words), declared);
            assert_eq!(line(&text, "violation "), call, "{text}");
            assert!(text.contains("signal 9"), "{text}");
        }
        // Whichever call the standard library takes to fork with.
        let text = run(*launcher, &job("start /bin/true"), &["clock", "seed", "threads_declared"]);
        assert!(["clone", "vfork", "fork", "socketpair"].contains(&line(&text, "violation ")), "{text}");
        let text = run(*launcher, &job("tsc"), &["clock", "seed"]);
        assert_eq!(line(&text, "signal "), "11", "{text}");
    }
}

/// covers: ACT-38, ACT-48
#[test]
fn what_is_declared_is_the_same_in_every_run() {
    let words = "clock , random , thread , heap , write /tmp/x , read /tmp/x , pid , uid , env , fds";
    for launcher in launchers() {
        let once = || run(*launcher, &job(words), &["clock", "seed", "threads_declared"]);
        let first = once();
        assert_eq!(line(&first, "ok clock "), "7000000009", "{first}");
        assert_eq!(line(&first, "ok thread "), "ran", "{first}");
        assert_eq!(line(&first, "ok read /tmp/x "), "x", "{first}");
        assert!(first.ends_with("exit 0\n"), "{first}");
        for _ in 0..3 {
            assert_eq!(once(), first);
        }
    }
}

/// A job whose calls nobody could be shown does not start.
#[test]
fn without_a_listener_there_is_no_job() {
    let text = run(As::Nobody, &job("pid"), &["seccomp_notify=no"]);
    assert!(text.contains("failed check guards"), "{text}");
    let mut half = job("pid");
    half.deterministic = false;
    assert!(half.validate(5).is_err());
    let mut half = probe("pid");
    half.deterministic = true;
    assert!(half.validate(5).is_err());
}
