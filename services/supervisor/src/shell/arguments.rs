//! What the supervisor is told at its start, and again at each later one: the same words.

use std::{path::PathBuf, time::Duration};

use base::layout::{Layout, LayoutError};
use sandbox::Guard;
use thiserror::Error;

use crate::core::catalogue;

/// A node's name becomes part of its key path.
const NODE_NAME_BYTES_MAX: usize = base::limits::KEY_PATH_SEGMENT_BYTES_MAX;
/// Defences that `prove` may switch off, and the longest name of one.
const BREAKS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    pub layout: Layout,
    pub node_name: String,
    /// Defences that callers may switch off; for `prove` alone.
    pub allow_break: Vec<String>,
    /// `CLOCK_BOOTTIME` when the keeper began, nanoseconds.
    pub boot_began_boottime_ns: u64,
    /// The node ends when it has not been used for this long; to the millisecond.
    pub idle_stop: Option<Duration>,
    /// Shipped services that are not to run; none that the node cannot be without.
    pub without: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArgumentsError {
    #[error("{0:?} is not an argument of the supervisor")]
    Unknown(String),
    #[error("{0} has no value, or is not given")]
    Missing(&'static str),
    #[error("{name} has the value {value:?}, which is not {what}")]
    Value { name: &'static str, value: String, what: &'static str },
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Arguments {
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut strings = vec![
            "--state".to_owned(),
            path(&self.layout.state),
            "--run".to_owned(),
            path(&self.layout.run),
            "--config".to_owned(),
            path(&self.layout.config),
            "--node-name".to_owned(),
            self.node_name.clone(),
            "--boot-began-ns".to_owned(),
            self.boot_began_boottime_ns.to_string(),
        ];
        if let Some(time) = self.idle_stop {
            strings.extend(["--idle-stop-ms".to_owned(), time.as_millis().to_string()]);
        }
        for service in &self.without {
            strings.extend(["--without".to_owned(), service.clone()]);
        }
        for guard in &self.allow_break {
            strings.extend(["--allow-break".to_owned(), guard.clone()]);
        }
        strings
    }

    pub fn from_strings(strings: &[String]) -> Result<Self, ArgumentsError> {
        let (mut state, mut run, mut config) = (None, None, None);
        let (mut node_name, mut began, mut idle_stop) = (None, None, None);
        let (mut allow_break, mut without) = (Vec::new(), Vec::new());
        let mut words = strings.iter();
        while let Some(word) = words.next() {
            let mut value = |name| words.next().cloned().ok_or(ArgumentsError::Missing(name));
            match word.as_str() {
                "--state" => state = Some(folder("--state", value("--state")?)?),
                "--run" => run = Some(folder("--run", value("--run")?)?),
                "--config" => config = Some(folder("--config", value("--config")?)?),
                "--node-name" => node_name = Some(name(value("--node-name")?)?),
                "--boot-began-ns" => began = Some(number("--boot-began-ns", value("--boot-began-ns")?)?),
                "--idle-stop-ms" => idle_stop = Some(number("--idle-stop-ms", value("--idle-stop-ms")?)?),
                "--without" => without.push(dispensable(value("--without")?)?),
                "--allow-break" => allow_break.push(part(value("--allow-break")?, allow_break.len())?),
                other => return Err(ArgumentsError::Unknown(other.chars().take(80).collect())),
            }
        }
        Ok(Self {
            layout: Layout {
                state: state.ok_or(ArgumentsError::Missing("--state"))?,
                run: run.ok_or(ArgumentsError::Missing("--run"))?,
                config: config.ok_or(ArgumentsError::Missing("--config"))?,
            },
            node_name: node_name.ok_or(ArgumentsError::Missing("--node-name"))?,
            boot_began_boottime_ns: began.ok_or(ArgumentsError::Missing("--boot-began-ns"))?,
            idle_stop: idle_stop.map(Duration::from_millis),
            allow_break,
            without,
        })
    }

    /// The broken parts that are guards of a sandbox.
    pub fn broken_guards(&self) -> impl Iterator<Item = Guard> {
        self.allow_break.iter().filter_map(|name| Guard::parse(name))
    }
}

fn folder(name: &'static str, value: String) -> Result<PathBuf, ArgumentsError> {
    let path = PathBuf::from(&value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(ArgumentsError::Value { name, value, what: "an absolute path" }),
    }
}

fn name(value: String) -> Result<String, ArgumentsError> {
    match (1..=NODE_NAME_BYTES_MAX).contains(&value.len()) {
        true => Ok(value),
        false => Err(ArgumentsError::Value { name: "--node-name", value, what: "1 to 255 bytes" }),
    }
}

/// A name that is in the catalogue, so that a mistyped one is noticed.
fn dispensable(value: String) -> Result<String, ArgumentsError> {
    match catalogue::find(&value).is_some() && !catalogue::is_critical(&value) {
        true => Ok(value),
        false => {
            let what = "the name of a service that a node can be without";
            Err(ArgumentsError::Value { name: "--without", value, what })
        }
    }
}

fn number(name: &'static str, value: String) -> Result<u64, ArgumentsError> {
    value.parse().map_err(|_| ArgumentsError::Value { name, value, what: "a number" })
}

fn part(value: String, known: usize) -> Result<String, ArgumentsError> {
    let is_name = value.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_');
    match is_name && known < BREAKS_MAX && value.len() <= base::limits::NAME_BYTES_MAX {
        true => Ok(value),
        false => Err(ArgumentsError::Value { name: "--allow-break", value, what: "the name of a defence" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments {
            layout: Layout { state: "/a b/state".into(), run: "/r".into(), config: "/c".into() },
            node_name: "desk".to_owned(),
            allow_break: vec!["landlock".to_owned(), "decision-signature".to_owned()],
            boot_began_boottime_ns: 17,
            idle_stop: Some(Duration::from_millis(1_500)),
            without: vec!["network".to_owned()],
        }
    }

    #[test]
    fn arguments_survive_the_command_line() {
        let arguments = arguments();
        assert_eq!(Arguments::from_strings(&arguments.to_strings()), Ok(arguments.clone()));
        assert_eq!(arguments.broken_guards().collect::<Vec<_>>(), [Guard::Landlock]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let strings = arguments().to_strings();
        for at in 0..5 {
            let mut fewer = strings.clone();
            fewer.drain(at * 2..at * 2 + 2);
            assert!(matches!(Arguments::from_strings(&fewer), Err(ArgumentsError::Missing(_))), "{at}");
        }
        let with = |word: &str, value: &str| {
            let more = [strings.clone(), vec![word.to_owned(), value.to_owned()]].concat();
            Arguments::from_strings(&more)
        };
        assert!(matches!(with("--stat", "/x"), Err(ArgumentsError::Unknown(_))));
        for (word, value) in [
            ("--state", "relative"),
            ("--node-name", ""),
            ("--boot-began-ns", "-1"),
            ("--idle-stop-ms", "10m"),
            ("--allow-break", "Land Lock"),
            ("--without", "keys"),
            ("--without", "netwrok"),
        ] {
            assert!(matches!(with(word, value), Err(ArgumentsError::Value { .. })), "{word} {value}");
        }
        assert!(with("--node-name", &"n".repeat(NODE_NAME_BYTES_MAX)).is_ok());
        assert!(with("--node-name", &"n".repeat(NODE_NAME_BYTES_MAX + 1)).is_err());
    }
}
