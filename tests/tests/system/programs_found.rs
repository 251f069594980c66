//! Programs of the host find what they look for around themselves: their libraries, their user's name. And the disks that
//! they share are limited.

use std::{fs, path::Path, process::Command, time::Instant};

use system_tests::{TestNode, is_root};

/// A program that has its library beside itself, as `$ORIGIN` says it.
fn program_with_a_library(folder: &Path) -> bool {
    let compile = |arguments: &[&str]| {
        let done = Command::new("gcc").current_dir(folder).args(arguments).status();
        done.is_ok_and(|status| status.success())
    };
    fs::write(folder.join("beside.c"), "int seven(void) { return 7; }\n").unwrap();
    fs::write(folder.join("main.c"), "int seven(void); int main(void) { return seven(); }\n").unwrap();
    fs::create_dir(folder.join("lib")).unwrap();
    compile(&["-shared", "-fPIC", "-o", "lib/libbeside.so", "beside.c"])
        && compile(&["-o", "with-a-library", "main.c", "-Llib", "-lbeside", "-Wl,-rpath,$ORIGIN/lib"])
}

#[test]
fn a_program_that_was_found_in_path_finds_its_libraries_beside_itself() {
    let Some(node) = TestNode::boot() else { return };
    let folder =
        tempfile::Builder::new().prefix("found").tempdir_in(std::env::var_os("HOME").unwrap()).unwrap();
    if !program_with_a_library(folder.path()) {
        return println!("skipped: no gcc that makes programs");
    }
    let grant = folder.path().to_str().unwrap();
    let found = |options: &[&str], program: &str| {
        let mut command = node.command(&[&["run"], options, &["--", program]].concat());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{grant}:{path}")).current_dir(folder.path()).output().unwrap()
    };
    for program in ["with-a-library", "./with-a-library"] {
        let output = found(&["--fs", grant], program);
        assert_eq!(output.status.code(), Some(7), "{program}: {output:?}");
    }
    // Where the folder is not seen, it runs where images lie, and its library is not there.
    assert_eq!(found(&[], "with-a-library").status.code(), Some(127));
    if Path::new("/usr/bin/java").exists() {
        let output = node.run(&["run", "--", "java", "-version"]);
        assert!(output.status.success(), "{output:?}");
    } else {
        println!("skipped in part: java is not installed");
    }
}

#[test]
fn a_program_has_a_name_where_the_host_has_none_for_its_id() {
    let Some(node) = TestNode::boot() else { return };
    let passwd = node.file("passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let group = node.file("group", "root:x:0:\n");
    let show = |file: &str, inside: &str| format!("{file}:ro:{inside}");
    let (passwd, group) = (show(&passwd, "/etc/passwd"), show(&group, "/etc/group"));
    let run = |script: &str| {
        let output = node.run(&["run", "--fs", &passwd, "--fs", &group, "--", "sh", "-c", script]);
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    let who = run("id -un; id -gn; tail -n1 /etc/passwd");
    assert_eq!(who.0, "program\nprogram\nprogram:x:1000:1000::/home/program:/bin/sh\n");
    if Path::new("/usr/bin/ssh").exists() {
        // It asks who it is before anything else, and refuses to go on without an answer.
        let (said, code) = run("ssh -G host.example | grep -c '^hostname host.example$'");
        assert_eq!((said.as_str(), code), ("1\n", Some(0)));
    } else {
        println!("skipped in part: ssh is not installed");
    }
}

/// covers: PRC-13, PRC-29
#[test]
fn a_program_reads_no_faster_than_it_may_and_a_limit_that_nothing_holds_is_refused() {
    let Some(node) = TestNode::boot() else { return };
    let status = node.json(&["status"]);
    let refused = node.run(&["run", "--io-read", "/proc=1M", "--", "true"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "{said}");
    if status.to_string().contains("cgroup io:") {
        let refused = node.run(&["run", "--io-read", "1M", "--", "true"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("disks cannot be limited"), "{said}");
        assert!(!is_root() || !Path::new("/sys/fs/cgroup/blkio").exists(), "there is one: {said}");
        return println!("skipped in part: no writable cgroup holds disks");
    }
    assert!(said.contains("/proc is on no disk: proc is mounted at /proc"), "{said}");
    let read = ["dd", "if=/usr/bin/perl", "of=/dev/null", "bs=64k", "count=16", "iflag=direct"];
    let began = Instant::now();
    let output = node.run(&[["run", "--io-read", "512K", "--"].as_slice(), &read].concat());
    assert!(output.status.success(), "{output:?}");
    // One mebibyte; load only makes it longer.
    assert!(began.elapsed().as_millis() > 1_500, "{:?}", began.elapsed());
    let created = node.json(&["log", "tail", "-n", "1", "--type", "ProcessCreate"]);
    let body = created[0]["body"].to_string();
    assert!(body.contains(r#""place":"all""#) && body.contains(r#""read_bytes":524288"#), "{body}");
}

/// covers: PRC-13
#[test]
fn a_service_starts_with_its_limits_of_disks_or_says_why_not() {
    let Some(node) = TestNode::boot() else { return };
    let manifest =
        |io: &str| format!("[program]\nimage = \"/bin/sleep\"\nargs = [\"1000\"]\n[resources]\n{io}");
    let limited = r#"io = [{ place = "/", read_bytes = 10000000 }]"#;
    let applied = node.apply("optional", &manifest(&format!("io_optional = true\n{limited}")));
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(node.service("optional")["state"], "Running", "{}", node.service("optional"));
    // One that is not there takes no other with it, and it is said which.
    let status = node.json(&["status"]);
    let two = r#"io = [{ place = "/", read_bytes = 10000000 }, { place = "/proc", read_bytes = 10000000 }]"#;
    let applied = node.apply("two", &manifest(&format!("io_optional = true\n{two}")));
    assert!(applied.status.success(), "{applied:?}");
    let missing = node.service("two")["missing"].to_string();
    if status.to_string().contains("cgroup io:") {
        assert!(missing.contains("no writable cgroup holds Io"), "{missing}");
        println!("skipped in part: no writable cgroup holds disks");
    } else {
        assert!(missing.contains("a disk is not limited: /proc is on no disk"), "{missing}");
        // A host whose root is on no disk has the other left out too.
        let is_held = !missing.contains("no writable cgroup holds Io");
        assert!(is_held || missing.contains("limited: / is on no disk"), "{missing}");
    }
    let applied = node.apply("nowhere", &manifest(r#"io = [{ place = "/proc", read_bytes = 10000000 }]"#));
    let said = format!("{applied:?} {}", node.service("nowhere"));
    assert_ne!(node.service("nowhere")["state"], "Running", "{said}");
}
