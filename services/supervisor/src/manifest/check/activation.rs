//! What starts a service, or is handed to it: its timer, its sockets.

use std::time::Duration;

use super::{
    super::limits::{
        CALENDAR_MAX, NAME_BYTES_MAX, SOCKET_BACKLOG_MAX, SOCKETS_MAX, TEXT_BYTES_MAX, TIMER_DURATION_MAX,
        TIMER_EVERY_MIN, TRIGGER_BURST_MAX,
    },
    super::{ListenAddress, ServiceManifest, SocketConfig, TimerConfig},
    Faults,
};

/// Variables that say what is handed over; the node sets them.
const OWN_VARIABLES: [&str; 3] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

pub(super) fn check(faults: &mut Faults, manifest: &ServiceManifest) {
    sockets(faults, &manifest.sockets);
    let limit = manifest.trigger_limit;
    faults.range("trigger_limit.burst", limit.burst, 0, TRIGGER_BURST_MAX);
    faults.duration("trigger_limit.interval_ms", limit.interval, Duration::ZERO);
    if !limit.is_usual() && !manifest.is_on_demand() {
        faults
            .add("trigger_limit", "only a service with a socket that is on_demand is started by connections");
    }
    if let Some(config) = &manifest.timer {
        timer(faults, config);
    }
    let Some(program) = &manifest.program else {
        if !manifest.sockets.is_empty() {
            faults.add("sockets", "only a [program] is handed sockets");
        }
        if manifest.timer.is_some() {
            faults.add("timer", "only a [program] is started by time");
        }
        return;
    };
    for name in OWN_VARIABLES.into_iter().filter(|name| program.env.contains_key(*name)) {
        faults.add(format!("program.env.{name}"), "the node sets it; leave it out");
    }
}

fn timer(faults: &mut Faults, timer: &TimerConfig) {
    faults.count("timer.calendar", timer.calendar.len(), CALENDAR_MAX);
    if timer.calendar.is_empty() && timer.after_boot.is_none() && timer.every.is_none() {
        faults.add("timer", "it needs one of calendar, after_boot_ms and every_ms");
    }
    let mut range = |key: &str, value: Duration, min: Duration| {
        faults.range(key, value.as_millis(), min.as_millis(), TIMER_DURATION_MAX.as_millis());
    };
    if let Some(after_boot) = timer.after_boot {
        range("timer.after_boot_ms", after_boot, Duration::ZERO);
    }
    if let Some(every) = timer.every {
        range("timer.every_ms", every, TIMER_EVERY_MIN);
    }
    range("timer.random_delay_ms", timer.random_delay, Duration::ZERO);
}

fn sockets(faults: &mut Faults, sockets: &[SocketConfig]) {
    faults.count("sockets", sockets.len(), SOCKETS_MAX);
    let mut seen: Vec<&ListenAddress> = Vec::new();
    for (index, socket) in sockets.iter().enumerate().take(SOCKETS_MAX) {
        let key = |field: &str| format!("sockets[{index}].{field}");
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let name = &socket.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) {
            faults.add(
                key("name"),
                format!(
                    "{name:?} is no name of a socket; allowed are 1 to {NAME_BYTES_MAX} bytes of A-Z a-z 0-9 _ - ."
                ),
            );
        }
        if seen.contains(&&socket.listen) {
            faults.add(key("listen"), format!("{} is named twice; one address is one socket", socket.listen));
        }
        seen.push(&socket.listen);
        faults.range(&key("backlog"), socket.backlog, 1, SOCKET_BACKLOG_MAX);
        if socket.mode.0 > 0o777 {
            faults.add(key("mode"), "the mode of a socket is 0000 to 0777");
        }
        if let Some(port) = socket.publish {
            let is_tcp = matches!(socket.listen, ListenAddress::Tcp(_));
            if port == 0 || !is_tcp || socket.on_demand {
                let what = "only a socket of TCP is published, at a port above 0 and not on demand";
                faults.add(key("publish"), what);
            }
        }
        let Some(user) = &socket.user else { continue };
        faults.text(&key("user"), user, TEXT_BYTES_MAX);
        if socket.listen.path().is_none() {
            faults.add(key("user"), "only the file of a unix socket has an owner");
        }
    }
}
