//! Failures that name their step, the second stage, and the listener.

use sandbox::seccomp::{NotifyCall, Profile};
use sandbox::{Executable, Guard, GuardSet, Mount};

use crate::common::{As, launchers, line, probe, run, shell};

#[test]
fn a_failure_names_its_step_and_leaves_nothing() {
    for launcher in launchers() {
        let mut plan = probe("pid");
        plan.mounts.push(Mount::Bind {
            source: "/does/not/exist".to_owned(),
            target: "/x".to_owned(),
            writable: false,
            optional: false,
        });
        let text = run(*launcher, &plan, &[]);
        let failed = line(&text, "failed open mount source: 2:");
        assert!(failed.contains("/does/not/exist"), "{text}");
        plan.mounts.pop();
        plan.working_directory = "/nowhere".to_owned();
        let text = run(*launcher, &plan, &[]);
        assert!(line(&text, "failed enter working directory: 2:").contains("/nowhere"), "{text}");
        plan.working_directory = "/".to_owned();
        plan.executable = Executable::Path("/bin/absent".to_owned());
        let text = run(*launcher, &plan, &[]);
        assert!(line(&text, "failed open executable: 2:").contains("/bin/absent"), "{text}");
        plan.executable = Executable::Slot(4);
        let text = run(*launcher, &plan, &[]);
        assert!(line(&text, "failed execute: 13:").contains("slot 4"), "{text}");
    }
}

/// Ordinary programs of the host, and a script that is executed by its path.
#[test]
fn programs_and_scripts_of_the_host_run() {
    let folder = tempfile::tempdir().unwrap();
    let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), open(0o755)).unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\necho script $0 $1; echo $(ls / | wc -l)\n").unwrap();
    std::fs::set_permissions(&script, open(0o755)).unwrap();
    for launcher in launchers() {
        let plan = shell("");
        let mut mounts = plan.mounts.clone();
        mounts.push(Mount::Bind {
            source: folder.path().to_str().unwrap().to_owned(),
            target: "/scripts".to_owned(),
            writable: false,
            optional: false,
        });
        let mut plan = plan.with_mounts(mounts);
        plan.executable = Executable::Path("/scripts/script".to_owned());
        plan.arguments = vec!["script".to_owned(), "argument".to_owned()];
        let text = run(*launcher, &plan, &[]);
        assert!(text.contains("script /scripts/script argument\n8\n"), "{text}");
    }
}

/// The monitor is PID 1 outside of the filter; the program inside is refused and seen.
#[test]
fn a_monitor_launches_the_second_stage_and_sees_its_calls() {
    for launcher in launchers() {
        let mut inner = probe("pid , read /etc/secret , mount , connect 127.0.0.1:9");
        inner.namespaces = sandbox::Namespaces::NONE;
        inner.seccomp.as_mut().unwrap().notify = vec![NotifyCall::Open, NotifyCall::Connect];
        inner.seccomp.as_mut().unwrap().sockets.inet = true;
        let inner = inner.inner();
        let folder = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let file = folder.path().join("plan");
        std::fs::write(&file, inner.encode()).unwrap();
        let mut plan = probe("");
        plan.arguments = vec!["monitor".to_owned(), "monitor".to_owned()];
        plan.seccomp = None;
        plan.landlock = None;
        plan.required = sandbox::GuardSet::EMPTY;
        let options = [format!("slot={}", file.display())];
        plan.descriptors.push(sandbox::Descriptor { slot: 5, target: 5 });
        plan.descriptors.push(sandbox::Descriptor { slot: 0, target: 6 });
        let text = run(*launcher, &plan, &options.each_ref().map(String::as_str));
        assert_eq!(line(&text, "monitor pid"), "1", "{text}");
        assert_ne!(line(&text, "ok pid"), "1");
        assert!(text.contains(r#"saw Some(Path { call: Open, path: [47, 101, 116, 99, 47, 115"#), "{text}");
        assert!(text.contains("saw Some(Internet { call: Connect, address: 127.0.0.1:9 })"), "{text}");
        line(&text, &format!("error {} mount", libc::EPERM));
        line(&text, "inner Code(0)");
    }
}

/// All that a new image would have lost or kept by `execve`: the launcher's descriptors, its capabilities, who may look in.
#[test]
fn a_part_goes_on_without_an_image_and_has_no_more_than_one() {
    let words =
        "pid , fds , status CapEff , status CapPrm , status Seccomp , status NoNewPrivs , read /etc/passwd";
    for launcher in launchers() {
        for guards in [GuardSet::EMPTY, GuardSet::of(&[Guard::NoNewPrivs])] {
            let mut plan = probe(words);
            plan.disabled = guards;
            plan.required = GuardSet::EMPTY;
            let executed = run(*launcher, &plan, &[]);
            plan.part = true;
            let gone_on = run(*launcher, &plan, &[]);
            // The launcher learns of it a moment earlier, so its own lines may come in between.
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&gone_on.replacen("part\n", "", 1)), sorted(&executed), "{guards:?}");
            assert!(gone_on.contains("part\n") && gone_on.contains("ok pid 1\n"), "{gone_on}");
        }
        // PR_GET_DUMPABLE: an image is like any other program, a copy of its launcher is not.
        let mut plan = probe("call 157 3");
        assert_eq!(line(&run(*launcher, &plan, &[]), "ok call 157 3"), "1");
        plan.part = true;
        assert_eq!(line(&run(*launcher, &plan, &[]), "ok call 157 3"), "0");
    }
}

/// A service's image starts under its allow-list; an image that does something else is killed.
#[test]
fn the_service_profile_carries_a_static_program_and_kills_the_rest() {
    for launcher in launchers() {
        for profile in [Profile::Service, Profile::Boundary] {
            let mut plan = probe("pid");
            plan.seccomp.as_mut().unwrap().profile = profile;
            let text = run(*launcher, &plan, &[]);
            assert!(text.contains("ok pid 1"), "{profile:?}: {text}");
            plan.arguments = ["probe", "probe", "call", "101", "0"].map(str::to_owned).to_vec();
            let text = run(*launcher, &plan, &[]);
            assert_eq!(line(&text, "signal"), libc::SIGSYS.to_string(), "{profile:?}: {text}");
        }
    }
}

#[test]
fn launching_from_several_threads_is_refused() {
    let plan = probe("pid");
    let text = run(As::Nobody, &plan, &["threads"]);
    line(&text, "failed check threads: 16:");
}
