//! The init of a service that publishes a port does nothing while `network` is not there, whoever waits for what.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread::sleep,
    time::Duration,
};

use system_tests::{TestNode, within};

const LIMIT: Duration = Duration::from_secs(60);
/// How long it is looked at, and how often it may be woken meanwhile.
const LOOKED_AT: Duration = Duration::from_secs(2);
const WOKEN_MAX: u64 = 20;

/// For how long it ran or would have, and how often it has waited.
fn activity(pid: i64) -> (Duration, u64) {
    let times = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let times = times.split(' ').take(2).map(|time| time.parse::<u64>().unwrap());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let waited = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    (Duration::from_nanos(times.sum()), waited.trim().parse().unwrap())
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn an_init_sleeps_while_network_is_away_though_somebody_waits_for_its_program() {
    let Some(node) = TestNode::boot() else { return };
    if !Path::new("/proc/self/schedstat").exists() {
        println!("skipped: the kernel does not say how long a process would have run");
        return;
    }
    let place = free_port();
    let rule = node.file(
        "rule.toml",
        "[[rule]]\nid = \"in\"\nname = \"in\"\npriority = 100\neffect = \"Allow\"\n\
         [rule.condition]\naction = { kind = \"listen\" }\n",
    );
    node.ok(&["policy", "add", &rule]);
    // It never listens, so the init looks again and again whether it does.
    let served = format!(
        "[program]\nimage = \"/bin/sleep\"\nargs = [\"100000\"]\n\
         [[sockets]]\nname = \"web\"\nlisten = \"tcp:{place}\"\npublish = 8080\n"
    );
    let applied = node.apply("served", &served);
    assert!(applied.status.success(), "{applied:?}");
    // The program's parent, and the first of its namespace.
    let of = |pid: i64, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().last().unwrap().parse::<i64>().unwrap()
    };
    let init = of(node.pid("served"), "PPid:");
    assert_eq!(of(init, "NSpid:"), 1);
    let network = node.pid("network");
    let (_, before) = activity(init);
    let _waits = TcpStream::connect(place).unwrap();
    assert!(within(LIMIT, || activity(init).1 > before + 3), "it does not look");
    node.ok(&["service", "stop", "network"]);
    assert!(!Path::new(&format!("/proc/{network}")).exists());
    // What it had begun is over by then.
    sleep(Duration::from_millis(200));
    let (ran_before, waited_before) = activity(init);
    let _comes_now = TcpStream::connect(place).unwrap();
    sleep(LOOKED_AT);
    let (ran, waited) = activity(init);
    let (ran, waited) = (ran.checked_sub(ran_before).unwrap(), waited - waited_before);
    println!("in {LOOKED_AT:?} it ran, or would have, for {ran:?}, and was woken {waited} times");
    assert!(ran < LOOKED_AT / 10, "it ran, or would have, for {ran:?}");
    assert!(waited <= WOKEN_MAX, "it was woken {waited} times");
}
