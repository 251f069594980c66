//! Socket units, which are `[[sockets]]` of their service.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Work, plain_path};
use crate::{
    manifest::{Socket, TriggerLimit},
    report::Fate,
    unit::{Setting, Unit, value},
};

/// The supervisor's limits.
const SOCKETS_MAX: usize = 16;
const BACKLOG_MAX: u64 = 65_535;
const UNIX_PATH_BYTES_MAX: usize = 107;
const TRIGGER_BURST_MAX: u64 = 1000;

/// An address as a manifest writes it.
fn address(text: &str, stream: bool) -> Result<String, String> {
    let (internet, unix) = if stream { ("tcp", "unix") } else { ("udp", "unix-dgram") };
    if text.starts_with('/') {
        let path = plain_path(text);
        if path.len() > UNIX_PATH_BYTES_MAX || path.split('/').any(|part| part == "..") {
            return Err(format!("{path:?} is no path of a socket"));
        }
        return Ok(format!("{unix}:{path}"));
    }
    if text.starts_with('@') {
        return Err("an abstract name has no owner and no mode; give the socket a path".to_owned());
    }
    let wrong = || format!("{text:?} is no address that can be listened on here: PORT, HOST:PORT or a path");
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let Some((host, number)) = text.rsplit_once(':') else {
        return Ok(format!("{internet}:[::]:{}", port(text)?));
    };
    let number = port(number)?;
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let host: Ipv6Addr = inside.parse().map_err(|_| wrong())?;
        return Ok(format!("{internet}:[{host}]:{number}"));
    }
    let host: Ipv4Addr = host.parse().map_err(|_| wrong())?;
    Ok(format!("{internet}:{host}:{number}"))
}

impl Work<'_> {
    pub(super) fn socket(&mut self, unit: &Unit) {
        self.part(unit);
        let one_of = |work: &mut Self, key: &str| work.one_of(unit, "Socket", key);
        if let Some(one) = one_of(self, "Service") {
            self.mapped(&one, "it belongs to this service");
        }
        let boots = ["WantedBy", "RequiredBy"].iter().flat_map(|key| self.unit.list("Install", key));
        let boots = boots.into_iter().any(|one| one.value.contains(".target"));
        let mut made = Socket { on_demand: !boots, ..Socket::default() };
        made.name = self.socket_name(unit);
        if let Some(one) = one_of(self, "Accept") {
            match self.truth(&one) {
                Some(true) => {
                    self.refused(&one, "there is no process for each connection; let the program accept, or start it under an inetd");
                    return self.rest_of_socket(unit, "Accept=yes: no socket is made");
                }
                Some(false) => self.mapped(&one, "the service accepts"),
                None => {}
            }
        }
        if let Some(one) = one_of(self, "Backlog") {
            match one.value.parse::<u64>() {
                Ok(backlog) if (1..=BACKLOG_MAX).contains(&backlog) => {
                    made.backlog = Some(backlog);
                    self.mapped(&one, "[[sockets]] backlog");
                }
                Ok(backlog) if backlog > BACKLOG_MAX => {
                    made.backlog = Some(BACKLOG_MAX);
                    self.mapped(&one, "[[sockets]] backlog, the most that the kernel counts");
                }
                _ => self.refused(&one, "it is no number of connections"),
            }
        }
        made.mode = Some("0666".to_owned());
        if let Some(one) = one_of(self, "SocketMode") {
            match value::octal(&one.value).filter(|mode| mode.starts_with('0')) {
                Some(mode) => {
                    made.mode = Some(mode);
                    self.mapped(&one, "[[sockets]] mode");
                }
                None => self.refused(&one, "it is no octal mode of a socket's file"),
            }
        }
        let (user, group) = (one_of(self, "SocketUser"), one_of(self, "SocketGroup"));
        let name = |one: &Option<Setting>| one.as_ref().map(|one| one.value.clone());
        made.user = match (name(&user), name(&group)) {
            (user, Some(group)) => Some(format!("{}:{group}", user.unwrap_or_else(|| "root".to_owned()))),
            // systemd's sockets are root's, whoever their service runs as.
            (user, None) => Some(user.unwrap_or_else(|| "root".to_owned())),
        };
        for one in [user, group].into_iter().flatten() {
            self.mapped(&one, "[[sockets]] user");
        }
        self.trigger_limit(unit, boots);
        self.listen(unit, &made);
        self.rest_of_socket(unit, "it says nothing here");
    }

    /// systemd counts for each socket unit, a manifest for the service.
    fn trigger_limit(&mut self, unit: &Unit, boots: bool) {
        let settings =
            ["TriggerLimitIntervalSec", "TriggerLimitBurst"].map(|key| self.one_of(unit, "Socket", key));
        if boots {
            for one in settings.iter().flatten() {
                self.ignored(one, "the service starts with the node; no connection starts it");
            }
            return;
        }
        let [interval, burst] = settings;
        let limit = TriggerLimit {
            interval_ms: interval.and_then(|one| self.trigger_interval_ms(&one)),
            burst: burst.and_then(|one| self.trigger_burst(&one)),
        };
        let none = TriggerLimit::default();
        if self.manifest.trigger_limit == none {
            self.manifest.trigger_limit = limit;
        } else if limit != none && limit != self.manifest.trigger_limit {
            let why = format!("the trigger limit of {} is left out: a service has one", unit.name.full());
            self.whole(Fate::Approximated, why);
        }
    }

    fn trigger_interval_ms(&mut self, one: &Setting) -> Option<u64> {
        let (ms, longer) = self.span_ms(one)?;
        match longer {
            true => self.approximated(one, format!("[trigger_limit] interval_ms, at most {ms}")),
            false => self.mapped(one, "[trigger_limit] interval_ms"),
        }
        Some(ms)
    }

    fn trigger_burst(&mut self, one: &Setting) -> Option<u64> {
        let Ok(burst) = one.value.parse::<u64>() else {
            self.refused(one, "it is no number of starts");
            return None;
        };
        match burst > TRIGGER_BURST_MAX {
            true => self.approximated(one, format!("[trigger_limit] burst, at most {TRIGGER_BURST_MAX}")),
            false => self.mapped(one, "[trigger_limit] burst"),
        }
        Some(burst.min(TRIGGER_BURST_MAX))
    }

    fn socket_name(&mut self, unit: &Unit) -> String {
        let given = self.one_of(unit, "Socket", "FileDescriptorName");
        let name = given.as_ref().map_or_else(|| unit.name.full(), |one| one.value.clone());
        let legal = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '-' };
        let made: String = name.chars().map(legal).take(64).collect();
        match given {
            Some(one) if made == name => self.mapped(&one, "[[sockets]] name"),
            Some(one) => self.refused(&one, format!("a name has letters, digits, _ - and .; it is {made:?}")),
            None if made == name => {}
            None => self.whole(
                Fate::Approximated,
                format!("the socket is called {made:?}: a name has letters, digits, _ - and ."),
            ),
        }
        made
    }

    fn listen(&mut self, unit: &Unit, like: &Socket) {
        let only_v6 = self.one_of(unit, "Socket", "BindIPv6Only").filter(|one| {
            let apart = one.value == "ipv6-only";
            if !apart {
                self.mapped(one, "an address [::] takes IPv4 too");
            }
            apart
        });
        let mut listens: Vec<(Setting, String)> = Vec::new();
        for (key, stream) in [("ListenStream", true), ("ListenDatagram", false)] {
            for one in unit.list("Socket", key) {
                let Some(text) = self.put_in_of(unit, &one, &one.value) else { continue };
                match address(&text, stream) {
                    Ok(listen) => listens.push((one, listen)),
                    Err(why) => self.refused(&one, why),
                }
            }
        }
        let of_both: Vec<String> = listens.iter().map(|(_, listen)| listen.clone()).collect();
        if let Some(one) = &only_v6 {
            self.approximated(
                one,
                "an address [::] takes IPv4 too; what listens on 0.0.0.0 beside it is left to it",
            );
        }
        for (one, listen) in listens {
            let beside = listen.replace("0.0.0.0", "[::]");
            if only_v6.is_some() && beside != listen && of_both.contains(&beside) {
                self.approximated(&one, format!("left to {beside}, which takes IPv4 too"));
                continue;
            }
            if self.manifest.sockets.len() == SOCKETS_MAX {
                self.refused(&one, format!("a service has at most {SOCKETS_MAX} sockets"));
                continue;
            }
            let is_file = listen.starts_with("unix");
            let mut socket = Socket { listen, ..like.clone() };
            if !is_file {
                (socket.mode, socket.user) = (None, None);
            }
            if self.manifest.sockets.iter().any(|known| known.listen == socket.listen) {
                self.refused(&one, "the address stands twice");
                continue;
            }
            self.manifest.sockets.push(socket);
            self.mapped(&one, "[[sockets]] listen");
        }
    }

    /// What is not set on the socket.
    fn rest_of_socket(&mut self, unit: &Unit, why: &str) {
        if let Some(one) = self.one_of(unit, "Socket", "ReusePort") {
            match self.truth(&one) {
                Some(true) => self.refused(&one, "one socket is bound, which no other program shares"),
                Some(false) => self.ignored(&one, "it is not set"),
                None => {}
            }
        }
        if let Some(one) = self.one_of(unit, "Socket", "RemoveOnStop") {
            self.approximated(
                &one,
                "the socket stays bound over restarts of its service, and goes with its manifest",
            );
        }
        for key in [
            "KeepAlive",
            "KeepAliveTimeSec",
            "KeepAliveIntervalSec",
            "KeepAliveProbes",
            "NoDelay",
            "DeferAcceptSec",
        ] {
            let Some(one) = self.one_of(unit, "Socket", key) else { continue };
            match value::boolean(&one.value) {
                Some(false) => self.ignored(&one, "it is not set"),
                _ => self.approximated(&one, "not set on the socket; the program sets it on its connections"),
            }
        }
        // Where no socket was made, what would have described it.
        let keys = [
            "ListenStream",
            "ListenDatagram",
            "BindIPv6Only",
            "Backlog",
            "SocketMode",
            "SocketUser",
            "SocketGroup",
            "TriggerLimitIntervalSec",
            "TriggerLimitBurst",
        ];
        for key in keys {
            for one in unit.list("Socket", key) {
                let said = |entry: &crate::report::Entry| entry.place == one.place && entry.key == one.key;
                if !self.report.entries.iter().any(said) {
                    self.refused(&one, why);
                }
            }
        }
        self.of_a_program(unit);
    }

    /// Keys of processes and of resources in a socket unit speak of its commands, which are not run.
    fn of_a_program(&mut self, unit: &Unit) {
        let settings: Vec<Setting> =
            unit.settings.iter().filter(|one| one.section == "Socket").cloned().collect();
        for one in settings {
            let said = |entry: &crate::report::Entry| entry.place == one.place && entry.key == one.key;
            if !self.report.entries.iter().any(said) {
                self.ignored(&one, "it is about the commands of a socket, and none is run");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_a_manifest() {
        let check =
            |text: &str, stream: bool, expected: &str| assert_eq!(address(text, stream).unwrap(), expected);
        check("22", true, "tcp:[::]:22");
        check("0.0.0.0:143", true, "tcp:0.0.0.0:143");
        check("[::1]:53", false, "udp:[::1]:53");
        check("/var/run/x.sock", true, "unix:/run/x.sock");
        check("/dev/log", false, "unix-dgram:/dev/log");
        for wrong in ["@abstract", "vsock:2:1", "0", "65536", "host:22", "[::]", "/a/../b", ""] {
            assert!(address(wrong, true).is_err(), "{wrong}");
        }
        let of = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        assert!(address(&of(UNIX_PATH_BYTES_MAX), true).is_ok());
        assert!(address(&of(UNIX_PATH_BYTES_MAX + 1), true).is_err());
    }
}
