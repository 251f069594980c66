//! Every escape attempt, as root (where the tests run so) and as nobody: refused; succeeds without its guards, or there
//! is a reason; and each guard that is named for it holds it alone.

#[cfg(test)]
mod suite {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use sandbox::attempts::CLASSES;

    const NOBODY: u32 = 65534;
    /// What the sandbox is judged by.
    const REFUSED_MIN: usize = 150;

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// The lines of one run. The suite limits the time of each attempt itself.
    fn run(uid: u32, words: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox_stage"));
        command.arg("suite").args(words).env("TMPDIR", folder.path()).stdin(Stdio::null());
        if is_root() {
            command.uid(uid).gid(uid);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn all_are_refused_and_shown(uid: u32, refused_min: usize) {
        let lines = run(uid, &["each"]);
        let all: usize = CLASSES.iter().map(|class| class.attempts().count()).sum();
        assert_eq!(lines.len(), all, "{lines:#?}");
        let bad: Vec<&String> =
            lines.iter().filter(|line| line.starts_with("MISSED") || line.contains("NOT SHOWN")).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        let shown =
            lines.iter().filter(|line| line.starts_with("held") && line.contains("[shown without")).count();
        assert!(shown >= refused_min, "{shown} of {all}: {lines:#?}");
    }

    /// covers: PRC-17, SUP-02
    #[test]
    fn as_nobody_all_are_refused() {
        all_are_refused_and_shown(NOBODY, REFUSED_MIN);
    }

    /// covers: PRC-17, SUP-02
    #[test]
    fn as_root_all_are_refused() {
        if is_root() {
            all_are_refused_and_shown(0, REFUSED_MIN);
        } else {
            println!("skipped: only root can be root");
        }
    }

    /// A guard that is off is noticed by the attempts that it alone holds.
    #[test]
    fn each_guard_that_is_off_is_noticed() {
        let cases = [
            ("mountns", "look_at_a_file"),
            ("pidns", "hold_a_process"),
            ("netns", "connect_by_tcp"),
            ("ipcns", "attach_shared_memory"),
            ("utsns", "learn_the_host_name"),
            ("cgroupns", "learn_its_group"),
            ("landlock", "signal_the_monitor"),
            ("seccomp", "unshare_a_user_namespace"),
            ("rlimits", "open_without_end"),
            ("caps", "take_a_capability"),
            ("cgroup", "fork_without_end"),
            ("userns", "learn_the_user"),
        ];
        for (guard, attempt) in cases {
            let lines = run(NOBODY, &[&format!("broken={guard}"), attempt]);
            assert!(matches!(lines.as_slice(), [line] if line.starts_with("MISSED")), "{guard}: {lines:?}");
        }
    }
}
