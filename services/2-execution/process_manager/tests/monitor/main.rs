//! Monitors with real programs, launched by a keeper, without a node.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test's helper cannot do fails the test"
)]

mod commands;
mod common;
mod cost;

use std::{
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use chain::payload::process::{ExitStatus, RefusedCall};
use common::{House, keepers};
use contracts::process_manager::v1 as pb;
use process_manager::monitor::protocol::{Phase, Reply, Request, Stream};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ECONNREFUSED: i32 = 111;
const ENETUNREACH: i32 = 101;

/// covers: PRC-10, PRC-11, PRC-21
#[test]
fn a_program_runs_only_when_it_is_released_and_sees_what_it_was_given() {
    for who in keepers() {
        let mut house = House::new(*who);
        let mut request = house.request(
            b"#!/bin/sh\nprintf '%s|' \"$0\" \"$@\"\nenv | sort | tr '\\n' '|'\npwd\n",
            "my script",
            &["a b", "", "$c"],
        );
        request.env.insert("GIVEN".to_owned(), "x y".to_owned());
        let held = house.hold(1, request);
        let mut control = held.connect();
        assert_eq!(control.status().phase, Phase::Held);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(control.status().phase, Phase::Held);
        assert_eq!(control.call(&Request::Release), Reply::Started);
        assert_eq!(control.call(&Request::Release), Reply::Started, "twice starts once");
        let text = control.read_all(Stream::Stdout);
        let expected = "/run/bailiwick/image/my script|a b||$c|GIVEN=x y|HOME=/home/program|PATH=";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("|PWD=/|TMPDIR=/tmp|/\n"), "{text}");
        assert_eq!(control.wait().status, ExitStatus::Code(0));
    }
}

#[test]
fn what_is_never_released_leaves_nothing() {
    let mut house = House::new(keepers()[0]);
    let request = house.script("echo ran");
    let held = house.hold(1, request);
    let mut control = held.connect();
    assert_eq!(control.call(&Request::Abort), Reply::Done);
    let exit = house.client().receive().unwrap().0;
    assert!(matches!(exit, sandbox::keeper_protocol::Reply::Exited { id: 1, .. }), "{exit:?}");
}

/// covers: PRC-16
#[test]
fn ends_are_told_as_they_were() {
    let mut house = House::new(keepers()[0]);
    let cases: [(&str, ExitStatus); 4] = [
        ("exit 3", ExitStatus::Code(3)),
        ("kill -9 $$", ExitStatus::Signal(9)),
        ("sleep 100 & exit 0", ExitStatus::Code(0)),
        ("kill -SEGV $$", ExitStatus::Signal(11)),
    ];
    for (id, (text, expected)) in (1..).zip(cases) {
        let start = Instant::now();
        let request = house.script(text);
        assert_eq!(house.run(id, request).1.status, expected, "{text}");
        assert!(start.elapsed() < Duration::from_secs(10), "its children went with it");
    }
}

#[test]
fn what_cannot_be_executed_is_said_with_its_reason() {
    let mut house = House::new(keepers()[0]);
    for (id, image, code) in [(1, &b"not a program"[..], 126), (2, b"#!/no/interpreter\n", 127)] {
        let request = house.request(image, "wrong", &[]);
        let mut control = house.hold(id, request).connect();
        let Reply::StartFailed { step, .. } = control.call(&Request::Release) else { panic!() };
        assert_eq!(step, "execute");
        assert_eq!(control.wait().status, ExitStatus::Code(code));
    }
}

/// covers: PRC-13, PRC-32
#[test]
fn limits_end_the_tree_and_are_named() {
    let mut house = House::new(keepers()[0]);
    let mut request = house.script("sleep 100");
    request.timeout_ms = 200;
    assert_eq!(house.run(1, request).1.status, ExitStatus::Limit("wall_time".to_owned()));
    let mut request = house.script("(while :; do :; done) & while :; do :; done");
    request.resource_limits = Some(pb::ResourceLimits { cpu_time_ms: 300, ..Default::default() });
    let ended = house.run(2, request).1;
    assert_eq!(ended.status, ExitStatus::Limit("cpu_time".to_owned()));
    assert!(ended.usage.cpu_time_ns >= 250_000_000, "{:?}", ended.usage);
    let mut request = house.script("ulimit -n");
    request.resource_limits = Some(pb::ResourceLimits { files: 77, ..Default::default() });
    assert_eq!(house.run(3, request).0.trim(), "77");
}

fn named<'r>(refused: &'r [RefusedCall], target: &str) -> Option<&'r RefusedCall> {
    refused.iter().find(|call| call.target == target)
}

/// The promise of `why`: path and address are named by what saw them.
#[test]
fn a_canary_and_a_server_of_the_host_are_refused_and_named() {
    let folder = tempfile::Builder::new().prefix("home").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let canary = folder.path().join("canary");
    std::fs::write(&canary, "secret").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let program = format!(
        r#"import socket, os
for path in ["{canary}", "../{canary}", "/etc/shadow", "/root/x", "/usr/lib/nothing.so", "/home/program/none"]:
    try: print("opened", path, open(path).read())
    except OSError as e: print("errno", e.errno)
for address in [("127.0.0.1", {port}), ("192.0.2.1", 80)]:
    try: socket.create_connection(address, 2); print("connected")
    except OSError as e: print("errno", e.errno)
inner = socket.socket(); inner.bind(("127.0.0.1", 0)); inner.listen()
socket.create_connection(inner.getsockname(), 2); print("inner connected")
"#,
        canary = canary.display(),
        port = server.local_addr().unwrap().port(),
    );
    for who in keepers() {
        let mut house = House::new(*who);
        let request = house.request(format!("#!/usr/bin/python3\n{program}").as_bytes(), "look", &[]);
        let (text, ended) = house.run(1, request);
        assert!(!text.contains("opened"), "{text}");
        assert!(text.contains("inner connected") && !text.contains("\nconnected"), "{text}");
        let path = named(&ended.refused, canary.to_str().unwrap()).unwrap();
        assert_eq!((path.call.as_str(), path.errno, path.times), ("openat", ENOENT, 2));
        let call = named(&ended.refused, &address).unwrap();
        assert_eq!((call.call.as_str(), call.errno), ("connect", ECONNREFUSED));
        assert_eq!(named(&ended.refused, "192.0.2.1:80").unwrap().errno, ENETUNREACH);
        assert_eq!(named(&ended.refused, "/etc/shadow").unwrap().errno, EACCES);
        let root = named(&ended.refused, "/root/x").unwrap();
        assert_eq!(root.errno, ENOENT);
        assert!(named(&ended.refused, "/usr/lib/nothing.so").is_none(), "searching is no refusal");
        assert_eq!(ended.refused.len(), 5, "{:?}", ended.refused);
    }
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "nobody came");
}

/// covers: PRC-19
#[test]
fn granted_paths_are_there_and_writable_only_if_said() {
    let folder = tempfile::Builder::new().prefix("grant").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(folder.path().join("file"), "granted").unwrap();
    let grant = |inside: &str, writable| pb::PathGrant {
        path: folder.path().to_str().unwrap().to_owned(),
        writable,
        inside: inside.to_owned(),
        copy_on_write: false,
    };
    for (id, who) in (1..).zip(keepers()) {
        let mut house = House::new(*who);
        let mut request =
            house.script("cat file; echo new > /rw/new && echo written; echo x > ./other || echo refused");
        request.cwd = Some("/ro".to_owned());
        request.paths = vec![grant("/ro", false), grant("/rw", true)];
        let (text, ended) = house.run(id, request);
        assert!(text.contains("granted") && text.contains("written") && text.contains("refused"), "{text}");
        assert_eq!(named(&ended.refused, "/ro/other").unwrap().errno, 30, "{:?}", ended.refused);
        // The next keeper is another user, who could not write this one's file.
        std::fs::remove_file(folder.path().join("new")).unwrap();
    }
    assert!(!folder.path().join("other").exists());
}

#[test]
fn an_absolute_name_is_where_the_image_stands() {
    let mut house = House::new(keepers()[0]);
    let request = house.request(b"#!/bin/sh\necho mine $0\n", "/usr/bin/env", &[]);
    assert_eq!(house.run(1, request).0, "mine /usr/bin/env\n");
}

#[test]
fn input_goes_in_and_large_output_comes_out_whole() {
    let mut house = House::new(keepers()[0]);
    let request = house.script("cat");
    let held = house.hold(1, request);
    let mut writer = held.connect();
    assert_eq!(writer.call(&Request::Release), Reply::Started);
    let piece: Vec<u8> = (0..60_000u32).flat_map(|n| (n % 251).to_le_bytes()).take(60_000).collect();
    let expected: Vec<u8> = std::iter::repeat_n(piece.clone(), 40).flatten().collect();
    let socket = held.socket.clone();
    let pid = held.pid;
    let reader = std::thread::spawn(move || {
        let mut control = common::Held { socket, pid }.connect();
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let (at, data, end) = control.read(Stream::Stdout, offset);
            assert_eq!(at, offset, "nothing is lost while somebody reads");
            offset = at + data.len() as u64;
            all.extend(data);
            // Slower than the program, so that it has to wait.
            std::thread::sleep(Duration::from_millis(1));
            if end {
                return all;
            }
        }
    });
    for _ in 0..40 {
        assert_eq!(writer.call(&Request::Stdin(piece.clone())), Reply::Done);
    }
    assert_eq!(writer.call(&Request::StdinEnd), Reply::Done);
    assert_eq!(reader.join().unwrap(), expected);
    assert_eq!(writer.wait().status, ExitStatus::Code(0));
}

/// covers: PRC-23, PRC-26
#[test]
fn signals_reach_the_tree() {
    let mut house = House::new(keepers()[0]);
    let request = house.script("trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.02; done");
    let mut control = house.hold(1, request).connect();
    control.call(&Request::Release);
    assert_eq!(control.read(Stream::Stdout, 0).1, b"ready\n");
    assert_eq!(control.call(&Request::Signal(19)), Reply::Done);
    assert!(control.status().suspended);
    control.call(&Request::Signal(15));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(control.status().phase, Phase::Running, "a stopped program does not see it");
    assert_eq!(control.call(&Request::Signal(18)), Reply::Done);
    assert_eq!(control.wait().status, ExitStatus::Code(7));
    assert!(matches!(control.call(&Request::Signal(9)), Reply::Refused(_)));
}

/// A process_manager that comes back finds the same program by its socket, with everything that it wrote.
#[test]
fn a_program_outlives_whoever_started_it() {
    let mut house = House::new(keepers()[0]);
    let request = house.script("echo before; read line; echo after $line; exit 5");
    let held = house.hold(1, request);
    let mut first = held.connect();
    first.call(&Request::Release);
    assert_eq!(first.read(Stream::Stdout, 0).1, b"before\n");
    drop(first);
    let mut second = held.connect();
    assert_eq!(second.status().phase, Phase::Running);
    assert_eq!(second.call(&Request::Stdin(b"hello\n".to_vec())), Reply::Done);
    assert_eq!(second.wait().status, ExitStatus::Code(5));
    drop(second);
    let mut third = held.connect();
    assert_eq!(third.read_all(Stream::Stdout), "before\nafter hello\n");
    assert_eq!(third.wait().status, ExitStatus::Code(5));
    assert_eq!(third.call(&Request::Acknowledge), Reply::Done);
}

/// covers: PRC-17
#[test]
fn the_monitor_cannot_be_looked_at_by_its_program() {
    for who in keepers() {
        let mut house = House::new(*who);
        let request = house.script(
            "cat /proc/1/environ /proc/1/maps 2>&1 | head -3; ls /proc/1/fd 2>&1; echo x > /proc/1/mem; \
             kill -9 1; echo alive",
        );
        let (text, ended) = house.run(1, request);
        assert!(text.contains("alive"), "{text}");
        assert!(!text.contains("r-xp") && text.to_lowercase().contains("denied"), "{text}");
        assert_eq!(ended.status, ExitStatus::Code(0));
    }
}

#[test]
fn a_broken_client_is_dropped_and_the_program_stays() {
    let mut house = House::new(keepers()[0]);
    let request = house.script("read line; echo $line");
    let held = house.hold(1, request);
    let mut control = held.connect();
    control.call(&Request::Release);
    let mut wrong = std::os::unix::net::UnixStream::connect(&held.socket).unwrap();
    wrong.write_all(&[0xff; 64]).unwrap();
    let mut left = Vec::new();
    std::io::Read::read_to_end(&mut wrong, &mut left).unwrap();
    assert!(left.is_empty());
    control.call(&Request::Stdin(b"still here\n".to_vec()));
    assert_eq!(control.read_all(Stream::Stdout), "still here\n");
}
