//! How exposed the host is to a program, line by line of what it is given: 0.0 (shut in) to 10.0 (nothing stands between).
//!
//! Pure. Each topic has a weight and each line a badness of 0 to 10, with its reason and what would lower it (`table.rs`).
//! Lines of one topic add up, to 10 at most; the total is the weighted mean. So a line more never lowers it, and a line
//! less never raises it. It rates what was asked for, not what a host can give: `bailiwick status` names what is missing.

mod places;
mod table;

use serde::Serialize;

use crate::Guard;

/// Of one line.
const BADNESS_MAX: u32 = 10;

/// What a program is given, whoever says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// As its author wrote them, such as `--fs` or `program.fs`.
    pub names: Names,
    pub writable: Vec<String>,
    pub readable: Vec<String>,
    /// Shown as if writable.
    pub copied: Vec<String>,
    /// It sees a root of its own and not the host's `/usr` and `/etc`.
    pub own_root: bool,
    pub host_network: bool,
    /// Places that it may connect to out of its own network.
    pub egress: Vec<String>,
    pub proxy: bool,
    /// Addresses that others reach it by, and whether each is reached from other machines.
    pub listens: Vec<(String, bool)>,
    pub user: User,
    /// Linux capabilities that it keeps.
    pub privileges: Vec<String>,
    /// What it may ask of the node.
    pub permissions: Vec<String>,
    pub secrets: Vec<String>,
    pub memory_limited: bool,
    pub processes_limited: bool,
    pub cpu_limited: bool,
    pub disk_limited: bool,
    pub io_limited: bool,
    pub watched: bool,
    /// Named by its hash, so that another file in its place does not run.
    pub pinned: bool,
    pub guards_off: Vec<Guard>,
}

/// How the lines of a subject are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    #[default]
    Manifest,
    Flags,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum User {
    /// In a user namespace, without a right over the host.
    #[default]
    Mapped,
    /// This one of the host.
    Host(String),
}

/// One line of the rating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub topic: &'static str,
    /// What was given, in its author's words.
    pub line: String,
    /// 0 to 10.
    pub badness: u32,
    /// Of the total, in hundredths.
    pub exposure_hundredths: u32,
    pub reason: String,
    /// What would lower it; empty where nothing is to be lowered.
    pub lower: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Score {
    /// 0 to 1 000.
    pub total_hundredths: u32,
    /// `closed ok exposed open`.
    pub level: &'static str,
    pub lines: Vec<Line>,
}

/// A line before it is weighed.
struct Found {
    line: String,
    badness: u32,
    reason: String,
    lower: String,
}

#[must_use]
pub fn score(subject: &Subject) -> Score {
    let weights: u32 = table::TOPICS.iter().map(|topic| topic.weight).sum();
    let mut lines = Vec::new();
    let mut total = 0;
    for topic in table::TOPICS {
        let mut found = (topic.look)(subject);
        // The worst counts first; of the others what is left.
        found.sort_by_key(|line| std::cmp::Reverse(line.badness));
        let mut left = BADNESS_MAX;
        for one in found {
            let counted = one.badness.min(left);
            left -= counted;
            let exposure = topic.weight * counted;
            total += exposure;
            lines.push(Line {
                topic: topic.name,
                line: one.line,
                badness: one.badness,
                exposure_hundredths: hundredths(exposure, weights),
                reason: one.reason,
                lower: one.lower,
            });
        }
    }
    let total_hundredths = hundredths(total, weights);
    Score { total_hundredths, level: level(total_hundredths), lines }
}

/// Weighted badness as hundredths of a total of 10.
fn hundredths(exposure: u32, weights: u32) -> u32 {
    exposure * 100 / weights.max(1)
}

fn level(total_hundredths: u32) -> &'static str {
    match total_hundredths {
        0..=100 => "closed",
        101..=300 => "ok",
        301..=600 => "exposed",
        _ => "open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As closed as it can be said.
    fn closed() -> Subject {
        Subject {
            own_root: true,
            memory_limited: true,
            processes_limited: true,
            cpu_limited: true,
            disk_limited: true,
            io_limited: true,
            watched: true,
            pinned: true,
            ..Subject::default()
        }
    }

    fn total(change: impl FnOnce(&mut Subject)) -> u32 {
        let mut subject = closed();
        change(&mut subject);
        score(&subject).total_hundredths
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn open() -> Subject {
        Subject {
            writable: texts(&["/"]),
            readable: texts(&["/", "/home"]),
            copied: texts(&["/srv", "/home", "/opt", "/var", "/a", "/b", "/c", "/d", "/e", "/f"]),
            host_network: true,
            listens: vec![("tcp:0.0.0.0:80".to_owned(), true); 4],
            user: User::Host("root".to_owned()),
            privileges: texts(&["sys_admin"]),
            permissions: texts(&["process.spawn"; 10]),
            secrets: texts(&["a", "b", "c", "d", "e"]),
            guards_off: vec![Guard::Seccomp, Guard::Landlock],
            ..Subject::default()
        }
    }

    #[test]
    fn nothing_given_is_nothing_exposed_and_all_of_it_is_ten() {
        let score = score(&closed());
        assert_eq!((score.total_hundredths, score.level), (0, "closed"), "{:#?}", score.lines);
        let all = super::score(&open());
        assert_eq!((all.total_hundredths, all.level), (1000, "open"), "{all:#?}");
    }

    /// Each thing alone, against nothing and against something milder of its kind.
    #[test]
    fn what_is_worse_counts_more() {
        let writable = |path: &str| total(|subject| subject.writable = texts(&[path]));
        assert!(0 < writable("/srv/data"));
        assert!(writable("/srv/data") < writable("/home"));
        assert!(writable("/home") < writable("/"));
        assert!(writable("/home") < writable("/etc") && writable("/etc") <= writable("/"));
        assert!(total(|subject| subject.copied = texts(&["/srv"])) < writable("/srv"));
        assert!(
            total(|subject| subject.readable = texts(&["/srv"]))
                < total(|subject| subject.readable = texts(&["/"]))
        );
        let privilege = |name: &str| total(|subject| subject.privileges = texts(&[name]));
        assert!(0 < privilege("net_bind_service"));
        assert!(privilege("net_bind_service") < privilege("setuid"));
        assert!(privilege("setuid") < privilege("sys_admin"));
        assert!(privilege("chown") < privilege("a name of tomorrow"), "what is not known is not harmless");
        let user = |name: &str| total(|subject| subject.user = User::Host(name.to_owned()));
        assert!(0 < user("redis") && user("redis") < user("root"));
        assert_eq!((user("0"), user("root:adm")), (user("root"), user("root")));
        let listen = |far| total(|subject| subject.listens = vec![("x".to_owned(), far)]);
        assert!(0 < listen(false) && listen(false) < listen(true));
        assert!(total(|subject| subject.own_root = false) > 0);
    }

    #[test]
    fn a_way_out_counts_by_how_wide_it_is_and_less_than_the_host_s_network() {
        let out = |places: &[&str], proxy| {
            total(|subject| (subject.egress, subject.proxy) = (texts(places), proxy))
        };
        let one = |place: &str| out(&[place], false);
        assert_eq!(out(&[], false), 0);
        assert!(0 < one("api.example.com:443"));
        let rising = [
            ["api.example.com", "*.example.com"],
            ["192.0.2.1:443", "192.0.2.1:*"],
            ["192.0.2.1:443", "192.0.2.0/24:443"],
            ["192.0.2.0/24:443", "192.0.0.0/12:443"],
            ["192.0.0.0/12:443", "0.0.0.0/0:*"],
            ["[2001:db8::1]:443", "[2001:db8::/48]:443"],
            ["192.0.2.1:5432", "127.0.0.1:5432"],
            ["127.0.0.1:80", "169.254.169.254:80"],
            ["api.example.com", "192.0.2.1/x:443"],
        ];
        for [less, more] in rising {
            assert!(one(less) < one(more), "{less} {more}");
        }
        assert_eq!(one("192.0.2.53:53/udp"), one("192.0.2.53:53"));
        let many: Vec<String> = (0..64).map(|n| format!("{n}.example.com:*")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let host = total(|subject| subject.host_network = true);
        for places in [&["api.example.com"][..], &["0.0.0.0/0:*", "[::/0]:*"], &many] {
            assert!(out(places, false) < out(places, true), "{places:?}");
            assert!(out(places, true) < host, "{places:?}");
        }
        let lines =
            score(&Subject { egress: texts(&["a.example", "*.b.example"]), proxy: true, ..closed() }).lines;
        let named =
            |what: &str| lines.iter().any(|line| line.line.contains(what) && line.exposure_hundredths > 0);
        assert!(named("a.example") && named("*.b.example") && named("egress.proxy"), "{lines:#?}");
    }

    #[test]
    fn every_limit_and_every_guard_counts() {
        type Change = fn(&mut Subject);
        let changes: [Change; 11] = [
            |subject| subject.memory_limited = false,
            |subject| subject.processes_limited = false,
            |subject| subject.cpu_limited = false,
            |subject| subject.disk_limited = false,
            |subject| subject.io_limited = false,
            |subject| subject.egress = texts(&["api.example.com"]),
            |subject| subject.proxy = true,
            |subject| subject.watched = false,
            |subject| subject.pinned = false,
            |subject| subject.host_network = true,
            |subject| subject.guards_off = vec![Guard::Utsns],
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(total(change) > 0, "change {number}");
        }
    }

    /// What a CI job relies on: taking a line away never makes it worse.
    #[test]
    fn a_line_less_never_raises_it() {
        let all = open();
        let whole = score(&all).total_hundredths;
        for n in 0..all.copied.len() {
            let mut less = all.clone();
            less.copied.remove(n);
            less.writable.clear();
            assert!(score(&less).total_hundredths <= whole);
        }
        let mut subject = closed();
        let mut before = 0;
        for path in ["/a", "/b", "/home", "/c", "/"] {
            subject.writable.push(path.to_owned());
            let now = score(&subject).total_hundredths;
            assert!(now >= before, "{path}");
            before = now;
        }
    }

    #[test]
    fn lines_say_why_and_what_would_help() {
        for names in [Names::Manifest, Names::Flags] {
            let lines = score(&Subject { names, ..open() }).lines;
            for line in lines.iter().filter(|line| line.badness > 0) {
                assert!(
                    !line.reason.is_empty() && !line.lower.is_empty() && !line.line.is_empty(),
                    "{line:?}"
                );
            }
            let sum: u32 = lines.iter().map(|line| line.exposure_hundredths).sum();
            assert!((950..=1000).contains(&sum), "{sum}");
        }
    }

    #[test]
    fn levels_begin_where_they_say() {
        for (total, name) in [(0, "closed"), (100, "closed"), (101, "ok"), (300, "ok"), (301, "exposed")] {
            assert_eq!(level(total), name, "{total}");
        }
        assert_eq!((level(600), level(601), level(1000)), ("exposed", "open", "open"));
    }
}
