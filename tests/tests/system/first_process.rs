//! A node as the first process of a pid namespace, and as a service of somebody else's.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    time::Duration,
};

use system_tests::{TestNode, is_root, within};

const SOON: Duration = Duration::from_secs(30);

/// Ends what it holds, whatever becomes of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one child of a process, as the host counts.
fn child_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// covers: SUP-97
#[test]
fn as_pid_1_it_reaps_strangers_and_stops_in_order_when_it_is_told() {
    let Some(node) = TestNode::empty() else { return };
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
    if !is_root() {
        command.args(["--user", "--map-current-user"]);
    }
    command
        .arg(std::env::var("BAILIWICK_BIN").unwrap())
        .arg("--root")
        .arg(node.root())
        .args(["up", "--name", "test"]);
    let log = fs::File::create(node.root().join("up.log")).unwrap();
    let spawned = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
    let mut outer = Ended(spawned.unwrap());
    let said = || fs::read_to_string(node.root().join("up.log")).unwrap_or_default();
    let runs = || {
        let status = node.run(&["status", "-o", "json"]);
        serde_json::from_slice::<serde_json::Value>(&status.stdout)
            .is_ok_and(|status| status["state"] == "running")
    };
    assert!(within(SOON, runs), "{}", said());
    let keeper = child_of(outer.0.id()).unwrap();
    let of_keeper = fs::read_to_string(format!("/proc/{keeper}/status")).unwrap();
    assert!(of_keeper.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{of_keeper}");
    // An orphan from outside of every sandbox becomes the keeper's, and does not stay as a zombie.
    let inside = if is_root() { vec![] } else { vec!["--user", "--preserve-credentials"] };
    let left = Command::new("nsenter")
        .args(["--target", &keeper.to_string(), "--pid"])
        .args(inside)
        .args(["sh", "-c", "sleep 0.2 &"])
        .status()
        .unwrap();
    assert!(left.success());
    let zombies = || {
        let children =
            fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap_or_default();
        let is_zombie = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
        };
        children.split_whitespace().filter(is_zombie).count()
    };
    std::thread::sleep(Duration::from_millis(300));
    assert!(within(SOON, || zombies() == 0));
    assert!(node.ok(&["run", "--", "/bin/echo", "works"]).contains("works"));
    // From outside of its namespace, as a container runtime does.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(keeper).unwrap()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let ended = || outer.0.try_wait().unwrap();
    let status = sandbox::wait_for(SOON, Duration::from_millis(20), ended);
    assert!(status.is_some_and(|status| status.success()), "{status:?} {}", said());
    // All of it is on record, and the next start finds a clean end.
    let output = node.run(&["log", "verify"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn who_started_it_as_a_service_is_told_that_it_is_up_and_that_it_ends() {
    let Some(mut node) = TestNode::empty() else { return };
    let path = node.root().join("notify");
    let host = UnixDatagram::bind(&path).unwrap();
    host.set_read_timeout(Some(SOON)).unwrap();
    node.try_up(&[("NOTIFY_SOCKET", &path)]).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = host.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1\nSTATUS=all services run\n");
    // It is the node's, and no program's.
    assert!(!node.ok(&["run", "--", "/usr/bin/env"]).contains("NOTIFY_SOCKET"));
    node.down();
    assert!(heard().starts_with("STOPPING=1\n"));
}
