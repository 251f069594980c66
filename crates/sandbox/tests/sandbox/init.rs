//! A program behind an init: what it is spared of being PID 1, and that it is no less shut in.

use sandbox::Executable;

use crate::common::{launchers, line, probe, run, shell};

/// SIGTERM without a handler is what the kernel keeps from a PID 1.
#[test]
fn its_end_is_told_as_it_was_signals_included() {
    for launcher in launchers() {
        for (script, end) in [
            ("exit 0", "exit 0"),
            ("exit 137", "exit 137"),
            ("kill -9 $$", "signal 9"),
            ("kill -TERM $$; exit 3", "signal 15"),
        ] {
            let mut plan = shell(script);
            plan.init = true;
            let text = run(*launcher, &plan, &[]);
            assert_eq!(text.lines().last(), Some(end), "{script}: {text}");
        }
        let text = run(*launcher, &shell("kill -TERM $$; exit 3"), &[]);
        assert_eq!(text.lines().last(), Some("exit 3"), "as PID 1: {text}");
    }
}

#[test]
fn it_is_not_pid_1_and_is_known_by_its_own_number_outside() {
    for launcher in launchers() {
        let mut plan = probe("pid , status PPid , list /proc/1/root");
        plan.init = true;
        let text = run(*launcher, &plan, &[]);
        assert_eq!(line(&text, "ok pid"), "2", "{text}");
        assert_eq!(line(&text, "ok status PPid"), "1");
        let (init, program) = line(&text, "behind").split_once(" is ").unwrap();
        assert!(init.parse::<i32>().unwrap() > 1 && program.parse::<i32>().unwrap() > 1 && init != program);
    }
}

/// One that executed `sleep` reaps nobody.
#[test]
fn orphans_are_reaped() {
    let script = "sh -c 'sleep 0.05 &'; (sleep 0.4; cat /proc/[0-9]*/stat | grep -c ' Z ') & exec sleep 0.7";
    for launcher in launchers() {
        let mut plan = shell(script);
        let text = run(*launcher, &plan, &[]);
        assert!(text.starts_with("1\n"), "as PID 1 it leaves a zombie: {text}");
        plan.init = true;
        let text = run(*launcher, &plan, &[]);
        assert!(text.lines().any(|line| line == "0"), "{text}");
    }
}

/// The init has no filter: a program that could write to it would have none either.
#[test]
fn the_init_cannot_be_looked_at_or_ended_by_its_program() {
    let script = "cat /proc/1/environ /proc/1/maps; readlink /proc/1/fd/0 /proc/1/exe || echo denied; \
                  echo x > /proc/1/mem; kill -9 1; echo alive";
    for launcher in launchers() {
        let mut plan = shell(&format!("({script}) 2>&1"));
        // Without the guards that would refuse the same a second time.
        plan.disabled = sandbox::GuardSet::of(&[sandbox::Guard::Landlock, sandbox::Guard::Seccomp]);
        plan.init = true;
        let text = run(*launcher, &plan, &[]);
        assert!(text.contains("alive") && !text.contains("r-xp"), "{text}");
        assert!(text.to_lowercase().matches("denied").count() >= 4, "{text}");
        line(&text, "exit 0");
    }
}

#[test]
fn what_ends_ends_with_everything_behind_it() {
    for launcher in launchers() {
        let mut plan = shell("sleep 60 & exit 4");
        plan.init = true;
        let begun = std::time::Instant::now();
        let text = run(*launcher, &plan, &[]);
        line(&text, "exit 4");
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it waited for what was left");
    }
}

#[test]
fn a_failure_names_its_step_behind_an_init_too() {
    for launcher in launchers() {
        let mut plan = probe("pid");
        plan.init = true;
        plan.executable = Executable::Slot(4);
        let text = run(*launcher, &plan, &[]);
        assert!(line(&text, "failed execute: 13:").contains("probe"), "{text}");
        plan.executable = Executable::Slot(0);
        plan.required = plan.required.with(sandbox::Guard::Landlock);
        let text = run(*launcher, &plan, &["landlock_abi=0"]);
        line(&text, "failed check guards: 95:");
    }
}
