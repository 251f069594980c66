//! Programs that were written for another supervisor: what runs before them, daemons, reloads, users of the host.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::Output,
    time::{Duration, Instant},
};

use system_tests::{TestNode, is_root, kill, within};

/// Far below the time after which a stop becomes a kill.
const AT_ONCE: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(15);

fn shell(script: &str) -> String {
    format!("['/bin/sh', '-c', '''{script}''']")
}

fn program(script: &str, more: &str) -> String {
    format!("[program]\nimage = '/bin/sh'\nargs = ['-c', '''{script}''']\n{more}")
}

fn applied(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn commands_run_before_a_program_and_one_that_fails_is_named() {
    let Some(node) = TestNode::boot() else { return };
    let before = format!(
        "before = [{{ command = {} }}, {{ command = {}, may_fail = true }}]",
        shell("echo made > /run/made; echo first"),
        shell("echo second; exit 3")
    );
    applied(&node.apply("ready", &program("cat /run/made; exec sleep 1000", &before)));
    let shown = fs::read_to_string(format!("/proc/{}/cmdline", node.pid("ready"))).unwrap();
    assert!(shown.starts_with("sleep"), "status shows what stays: {shown}");
    assert!(
        within(SOON, || node.service_log("ready") == "first\nsecond\nmade\n"),
        "{}",
        node.service_log("ready")
    );
    let started = node.log(&["ServiceStart"]);
    let recorded = started.iter().find(|entry| entry["body"]["name"] == "ready").unwrap();
    assert_eq!(recorded["body"]["pid"].as_i64(), Some(node.pid("ready")), "{recorded}");

    let fails = format!("before = [{{ command = {} }}]\n[restart]\nmax_restarts = 0", shell("exit 3"));
    let refused = node.apply("never", &program("echo begun", &fails));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("exit 3") && said.contains("code 3"), "{said}");
    assert_eq!(node.service_log("never"), "");
    let absent = "before = [{ command = ['/absent'] }]\n[restart]\nmax_restarts = 0";
    let refused = node.apply("absent", &program("echo begun", absent));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("/absent"), "{said}");
    let late = "before = [{ command = ['/bin/sleep', '1000'] }]\n[health]\nstartup_timeout_ms = 500\n[restart]\nmax_restarts = 0";
    let refused = node.apply("late", &program("echo begun", late));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("not ready in time"), "{said}");
    assert!(within(SOON, || node.service("late")["state"] == "Stopped"), "{}", node.service("late"));
}

#[test]
fn commands_follow_a_start_and_one_that_fails_fails_it() {
    let Some(node) = TestNode::boot() else { return };
    let after = format!(
        "after = [{{ command = {}, may_fail = true }}, {{ command = {} }}]",
        shell("exit 3"),
        shell("echo after; cat /run/own")
    );
    let script = "echo mine > /run/own; exec sleep 1000";
    applied(&node.apply("mine", &program(script, &after)));
    assert!(within(SOON, || node.service_log("mine") == "after\nmine\n"), "{}", node.service_log("mine"));
    // They follow a start, not the next supervisor.
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    node.settled();
    assert_eq!(node.service_log("mine"), "after\nmine\n");
    let fails = format!("after = [{{ command = {} }}]\n[restart]\nmax_restarts = 0", shell("exit 7"));
    node.apply("fails", &program("exec sleep 1000", &fails));
    assert!(within(SOON, || node.service("fails")["state"] == "Stopped"), "{}", node.service("fails"));
    let why = node.service("fails")["last_error"].to_string();
    assert!(why.contains("exit 7") && why.contains("code 7"), "{why}");
}

const DAEMON: &str = "(trap \"echo told; exit 0\" TERM; trap \"echo again\" HUP; echo here; \
                      while :; do sleep 0.05; done) & echo $! > /run/mine.pid";

#[test]
fn a_daemon_is_the_service_and_is_stopped_reloaded_and_restarted_as_one() {
    let Some(node) = TestNode::boot() else { return };
    let more = "runs = 'forks'\npid_file = '/run/mine.pid'\nreload_signal = 'hup'";
    applied(&node.apply("mine", &program(DAEMON, more)));
    let first = node.pid("mine");
    assert!(within(SOON, || node.service_log("mine").contains("here")));
    node.ok(&["service", "reload", "mine"]);
    assert!(within(SOON, || node.service_log("mine").contains("again")), "{}", node.service_log("mine"));
    // The supervisor's death changes nothing.
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    node.settled();
    assert_eq!(node.pid("mine"), first);
    kill(first);
    assert!(within(SOON, || node.service("mine")["pid"].as_i64().is_some_and(|pid| pid != first)));
    assert_eq!(node.service("mine")["last_error"], "was ended by signal 9");
    let begun = Instant::now();
    node.ok(&["service", "stop", "mine"]);
    assert!(
        begun.elapsed() < AT_ONCE && node.service_log("mine").ends_with("told\n"),
        "{}",
        node.service_log("mine")
    );

    let nobody = node.apply("empty", &program("exit 0", "runs = 'forks'\n[restart]\nmax_restarts = 0"));
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(!nobody.status.success() && said.contains("no daemon"), "{said}");
}

#[test]
fn commands_stop_and_reload_a_program() {
    let Some(node) = TestNode::boot() else { return };
    let script = "trap \"echo again\" HUP; trap \"echo told; exit 0\" INT; echo $$ > /run/own; echo here; \
                  while :; do sleep 0.05; done";
    let more = format!(
        "stop = {}\nstop_signal = 'int'\nreload = {}",
        shell("echo stopping; exit 1"),
        shell("kill -HUP $(cat /run/own)")
    );
    applied(&node.apply("mine", &program(script, &more)));
    assert!(within(SOON, || node.service_log("mine").contains("here")));
    node.ok(&["service", "reload", "mine"]);
    assert!(within(SOON, || node.service_log("mine").contains("again")), "{}", node.service_log("mine"));
    node.ok(&["service", "stop", "mine"]);
    assert!(node.service_log("mine").ends_with("stopping\ntold\n"), "{}", node.service_log("mine"));
    // A reload is a decision like a restart.
    let decided = node.log(&["PolicyDecision"]);
    assert!(decided.iter().any(|entry| entry.to_string().contains("restart")), "no decision on record");

    let refused = node.run(&["service", "reload", "mine"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("does not run"), "{said}");
    applied(&node.apply("plain", &program("exec sleep 1000", "")));
    let refused = node.run(&["service", "reload", "plain"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("service restart plain"), "{said}");
    let fails = format!("reload = {}", shell("exit 9"));
    applied(&node.apply("fails", &program("exec sleep 1000", &fails)));
    let refused = node.run(&["service", "reload", "fails"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("code 9"), "{said}");
}

#[test]
fn variables_come_from_files_and_folders_are_its_own() {
    let Some(node) = TestNode::boot() else { return };
    let first = node.file("first", "A=one\nB='two words'\n# nothing\nC=three\n");
    let second = node.file("second", "B=later\n");
    let more = format!(
        "umask = '0027'\nenv = {{ C = 'mine' }}\nenv_files = [{{ path = '{first}' }}, {{ path = '{second}' }}, \
         {{ path = '/absent', optional = true }}]\nfolders = [{{ path = '/run/own', mode = '2750' }}]"
    );
    let script =
        "echo $A $B $C; stat -c '%a' /run/own; touch /run/own/x && echo made; umask; exec sleep 1000";
    applied(&node.apply("mine", &program(&script.replace('\'', "\""), &more)));
    assert!(
        within(SOON, || node.service_log("mine") == "one later mine\n2750\nmade\n0027\n"),
        "{}",
        node.service_log("mine")
    );
    let refused = node.apply("other", &program("true", "env_files = [{ path = '/absent' }]"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/absent"), "{refused:?}");
}

#[test]
fn a_program_is_a_user_of_the_host_as_far_as_the_node_may() {
    let Some(node) = TestNode::boot() else { return };
    let absent = node.apply("absent", &program("true", "user = 'nobody-of-this-name'"));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("nobody-of-this-name"), "{absent:?}");
    let who = "id -u; id -g; exec sleep 1000";
    if !is_root() {
        let own = fs::metadata("/proc/self").unwrap().uid();
        applied(&node.apply("own", &program(who, &format!("user = '{own}'"))));
        assert!(
            within(SOON, || node.service_log("own").starts_with(&format!("{own}\n"))),
            "{}",
            node.service_log("own")
        );
        for more in ["user = 'root'", "user = '0'\nprivileges = ['chown']"] {
            let refused = node.apply("other", &program(who, more));
            assert!(String::from_utf8_lossy(&refused.stderr).contains("root"), "{refused:?}");
        }
        return;
    }
    applied(&node.apply("daemon", &program(who, "user = 'daemon'\ngroups = ['adm']")));
    assert!(within(SOON, || node.service_log("daemon") == "1\n1\n"), "{}", node.service_log("daemon"));
    assert_eq!(fs::metadata(format!("/proc/{}", node.pid("daemon"))).unwrap().uid(), 1);
    // Its own folder follows who it is.
    let folder = node.root().join("state/daemon");
    assert_eq!(fs::metadata(&folder).unwrap().uid(), 1);
    node.ok(&["service", "stop", "daemon"]);
    applied(&node.apply("daemon", &program("touch /state/x && id -u; exec sleep 1000", "")));
    assert!(
        within(SOON, || node.service_log("daemon").ends_with("\n1000\n")),
        "{}",
        node.service_log("daemon")
    );

    let rights = "grep CapEff /proc/self/status; chown 1:1 /state/owned 2>&1; \
                  touch /state/owned; chown 1:1 /state/owned && echo given; exec sleep 1000";
    applied(&node.apply("chief", &program(rights, "user = 'root'\nprivileges = ['chown', 'setuid']")));
    let expected = "CapEff:\t00000000000000a1\n";
    assert!(within(SOON, || node.service_log("chief").ends_with("given\n")), "{}", node.service_log("chief"));
    assert!(node.service_log("chief").starts_with(expected), "{}", node.service_log("chief"));
}

/// Everything that a service is told of a secret is its file.
#[test]
fn secrets_are_files_in_memory_of_its_own() {
    const SECRET: &str = "correct horse battery";
    let Some(node) = TestNode::boot() else { return };
    let file = node.file("secret", SECRET);
    let more = format!("secrets = [{{ name = 'token', path = '{file}' }}]");
    let script = "cd $CREDENTIALS_DIRECTORY && wc -c < token && stat -c %a token . && \
                  (echo x > other) 2>/dev/null || echo closed; exec sleep 1000";
    applied(&node.apply("mine", &program(script, &more)));
    assert!(
        within(SOON, || node.service_log("mine") == "21\n400\n500\nclosed\n"),
        "{}",
        node.service_log("mine")
    );
    let environment = fs::read(format!("/proc/{}/environ", node.pid("mine"))).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(SECRET));
    let seen = |folder: &str| {
        let found = std::process::Command::new("grep").args(["-rlF", SECRET, folder]).output().unwrap();
        String::from_utf8_lossy(&found.stdout).into_owned()
    };
    assert_eq!(seen(node.root().join("state").to_str().unwrap()), "");
    let refused = node.apply("other", &program("true", "secrets = [{ name = 'token', path = '/absent' }]"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/absent"), "{refused:?}");
}
