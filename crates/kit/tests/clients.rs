//! Clients that come and go while a service runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::{
    os::{fd::AsFd, unix::net::UnixListener},
    time::Duration,
};

use common::{Rig, TestService, Wish, rig, until};
use contracts::keys::v1 as keys;
use kit::clients::ClientChange;

/// Binds a client's socket and tells the service of it; nobody else holds it.
fn come(rig: &Rig, client: &str) {
    let path = rig.socket(client);
    let _ = std::fs::remove_file(&path);
    let socket = UnixListener::bind(path).unwrap();
    tell(rig, &ClientChange::Serve(client.to_owned()), Some(&socket));
}

fn tell(rig: &Rig, change: &ClientChange, socket: Option<&UnixListener>) {
    let fds: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    rig.clients.send(&change.encode(), &fds).unwrap();
}

async fn is_served(rig: &Rig, client: &str) -> bool {
    let mut keys = rig.keys(client, "verify");
    let call = keys.verify(keys::VerifyRequest::default());
    tokio::time::timeout(Duration::from_secs(10), call).await.is_ok_and(|answer| answer.is_ok())
}

fn accepts(rig: &Rig, client: &str) -> bool {
    std::os::unix::net::UnixStream::connect(rig.socket(client)).is_ok()
}

#[tokio::test]
async fn a_new_client_is_served_and_one_that_has_gone_is_not() {
    let rig = rig::<TestService>(Wish::default()).started().await;
    come(&rig, "bob");
    assert!(is_served(&rig, "bob").await);
    assert!(is_served(&rig, "alice").await, "the one before stays");
    tell(&rig, &ClientChange::Only(vec!["alice".to_owned()]), None);
    until("bob's socket is closed", || !accepts(&rig, "bob")).await;
    assert!(is_served(&rig, "alice").await);
    tell(&rig, &ClientChange::Only(Vec::new()), None);
    until("alice's socket is closed", || !accepts(&rig, "alice")).await;
    // What is no edge stays.
    assert!(is_served(&rig, "admin").await);
}

#[tokio::test]
async fn the_same_socket_again_changes_nothing_and_another_takes_its_place() {
    let rig = rig::<TestService>(Wish::default()).started().await;
    let path = rig.socket("bob");
    let socket = UnixListener::bind(&path).unwrap();
    for _ in 0..3 {
        tell(&rig, &ClientChange::Serve("bob".to_owned()), Some(&socket));
    }
    assert!(is_served(&rig, "bob").await);
    drop(socket);
    let old = path.with_extension("old");
    std::fs::rename(&path, &old).unwrap();
    come(&rig, "bob");
    assert!(is_served(&rig, "bob").await);
    until("the old socket is closed", || std::os::unix::net::UnixStream::connect(&old).is_err()).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_passed_over() {
    let rig = rig::<TestService>(Wish::default()).started().await;
    rig.clients.send(b"\xff\xff", &[]).unwrap();
    tell(&rig, &ClientChange::Serve("nobody".to_owned()), None);
    let file = std::fs::File::open("/dev/null").unwrap();
    rig.clients.send(&ClientChange::Serve("file".to_owned()).encode(), &[file.as_fd()]).unwrap();
    come(&rig, "bob");
    assert!(is_served(&rig, "bob").await);
    assert!(!rig.running.is_finished());
}

/// The supervisor's end is the keeper's: it goes with the node, and then nothing matters any more.
#[tokio::test]
async fn without_the_channel_a_service_serves_on() {
    let mut rig = rig::<TestService>(Wish::default()).started().await;
    rig.clients = sandbox::fdpass::Channel::pair().unwrap().0;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(is_served(&rig, "alice").await && !rig.running.is_finished());
}
