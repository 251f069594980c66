//! A program behind an init: what it is spared of being PID 1, and that it is no less shut in.

use sandbox::{Command, Executable, Forks};

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

fn command(script: &str, may_fail: bool) -> Command {
    let arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    Command { path: "/bin/sh".to_owned(), arguments, may_fail }
}

#[test]
fn commands_run_before_the_program_in_its_sandbox_and_in_order() {
    for launcher in launchers() {
        let mut plan = shell("cat /tmp/made; exit 7");
        plan.init = true;
        plan.commands = vec![
            command("echo first > /tmp/made; test $$ != 1", false),
            command("exit 3", true),
            command("echo second >> /tmp/made", false),
        ];
        plan.before = 3;
        let text = run(*launcher, &plan, &[]);
        // Two write to one pipe: what each says is in order.
        let (told, said): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("done") || line.starts_with("settled"));
        let [a, b, c, settled] = told[..] else { panic!("{text}") };
        assert_eq!([a, b, c], ["done 0 Code(0)", "done 1 Code(3)", "done 2 Code(0)"]);
        assert!(settled.starts_with("settled "), "{text}");
        assert!(said.ends_with(&["first", "second", "exit 7"]), "{text}");
        plan.commands[1].may_fail = false;
        let text = run(*launcher, &plan, &[]);
        assert!(text.contains("done 1 Code(3)") && !text.contains("second"), "{text}");
        line(&text, "exit 3");
    }
}

#[test]
fn a_daemon_is_the_program_once_its_parent_has_ended() {
    let daemon = "(trap 'exit 5' TERM; echo here; echo $PPID > /tmp/parent; while :; do sleep 0.01; done) & ";
    for launcher in launchers() {
        for (script, pid_file) in [
            (format!("{daemon} exit 0"), None),
            // A second one, born earlier, is not the one that the file names.
            (format!("sleep 9 & {daemon} echo $! > /tmp/pid; exit 0"), Some("/tmp/pid".to_owned())),
        ] {
            let mut plan = shell(&script);
            plan.init = true;
            plan.forks = Some(Forks { pid_file });
            // TERM for the daemon, which the init passes on: a command has no other way to it.
            plan.commands = vec![command("while ! test -e /tmp/parent; do :; done; kill -TERM 1", false)];
            let text = run(*launcher, &plan, &["run=0"]);
            line(&text, "settled ");
            line(&text, "here");
            line(&text, "exit 5");
        }
        let mut plan = shell("exit 0");
        plan.init = true;
        plan.forks = Some(Forks::default());
        line(&run(*launcher, &plan, &[]), "exit 0");
        plan.arguments = ["sh", "-c", "sleep 9 & exit 6"].map(str::to_owned).to_vec();
        line(&run(*launcher, &plan, &[]), "exit 6");
    }
}

#[test]
fn a_command_runs_beside_the_program_and_only_one_that_was_laid_down() {
    for launcher in launchers() {
        let mut plan = shell("while ! test -e /tmp/end; do sleep 0.01; done; exit 4");
        plan.init = true;
        plan.commands = vec![
            command("exit 9", false),
            Command { path: "/absent".to_owned(), arguments: vec!["absent".to_owned()], may_fail: false },
            command("exit 0", false),
            // With the program all ends, this one's end untold or not.
            command("touch /tmp/end", false),
        ];
        // Where its errors go.
        plan.descriptors[2].slot = 2;
        let text = run(*launcher, &plan, &["run=0", "run=1", "run=4", "run=2", "run=3"]);
        for expected in ["done 0 Code(9)", "done 1 Code(127)", "done 2 Code(0)"] {
            line(&text, expected);
        }
        line(&text, "bailiwick: /absent: open executable failed: No such file or directory");
        line(&text, "exit 4");
    }
}

/// A first command that cannot be executed is a launch that failed.
#[test]
fn what_cannot_run_before_is_named() {
    for launcher in launchers() {
        let mut plan = shell("exit 0");
        plan.init = true;
        plan.commands =
            vec![Command { path: "/absent".to_owned(), arguments: vec!["x".to_owned()], may_fail: true }];
        plan.before = 1;
        assert!(line(&run(*launcher, &plan, &[]), "failed open executable: 2:").contains("/absent"));
        plan.init = false;
        assert!(plan.validate(1).is_err(), "commands without an init");
    }
}

/// What a program that is given sockets checks before it takes them.
#[test]
fn a_program_is_told_its_own_number_and_a_command_is_not() {
    for launcher in launchers() {
        for init in [false, true] {
            let mut plan = shell("cat /tmp/seen 2>/dev/null; test \"$LISTEN_PID\" = $$");
            plan.own_pid = Some("LISTEN_PID".to_owned());
            plan.init = init;
            if init {
                plan.commands = vec![command("echo \"before:$LISTEN_PID.\" > /tmp/seen", false)];
                plan.before = 1;
            }
            let text = run(*launcher, &plan, &[]);
            line(&text, "exit 0");
            assert_eq!(text.contains("before:."), init, "{text}");
        }
        let mut zero = shell("exit 0");
        zero.own_pid = Some("A\0B".to_owned());
        assert!(zero.validate(1).is_err());
        zero.own_pid = Some("A=B".to_owned());
        assert!(zero.validate(1).is_err());
    }
}
