//! A request to run one more command beside a service, checked.

use std::time::Duration;

use base::Hash;
use contracts::supervisor::v1::{Execution, TerminalSize};

use super::execute_streams::Window;
use crate::core::supervisor::SupervisorError;

/// A day: what is to run longer is a service.
const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Bytes of the command's name that go on record.
const LOGGED_NAME_BYTES_MAX: usize = 64;

/// What was asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) service: String,
    pub(super) command: Vec<String>,
    pub(super) encoded: Vec<u8>,
    pub(super) terminal: Option<Window>,
    pub(super) timeout: Option<Duration>,
}

impl Wanted {
    pub(super) fn parse(begin: Execution) -> Result<Self, SupervisorError> {
        let Execution { name, command, env, cwd, terminal, timeout_ms } = begin;
        let refuse = |text: String| SupervisorError::NotExecuted { service: name.clone(), text };
        if timeout_ms > TIMEOUT_MS_MAX {
            return Err(refuse(format!("timeout_ms is {timeout_ms}, at most {TIMEOUT_MS_MAX} are allowed")));
        }
        let terminal = terminal.map(|size| window(&size)).transpose().map_err(refuse)?;
        let execution = sandbox::Execution {
            arguments: command.clone(),
            environment: env.into_iter().collect(),
            working_directory: cwd,
            terminal: terminal.is_some(),
        };
        let encoded = execution.encode().map_err(|error| refuse(error.to_string()))?;
        let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
        Ok(Self { service: name, command, encoded, terminal, timeout })
    }

    /// What goes on record: the name, and a hash of the arguments, which may hold what must not be kept for ever.
    pub(super) fn logged(&self) -> [(String, String); 2] {
        let (name, rest) = self.command.split_first().map_or(("", &[][..]), |(name, rest)| (name, rest));
        let end = name.floor_char_boundary(LOGGED_NAME_BYTES_MAX);
        let mut bytes = Vec::new();
        for argument in rest {
            bytes.extend((argument.len() as u64).to_le_bytes());
            bytes.extend(argument.as_bytes());
        }
        let hash = Hash::of_parts(&[b"bailiwick arguments v1\0", &bytes]);
        [
            ("command".to_owned(), name.get(..end).unwrap_or_default().to_owned()),
            ("arguments".to_owned(), hash.to_string()),
        ]
    }
}

pub(super) fn window(size: &TerminalSize) -> Result<Window, String> {
    let side = |value: u32| u16::try_from(value).ok().filter(|value| *value > 0);
    match (side(size.rows), side(size.columns)) {
        (Some(rows), Some(columns)) => Ok(Window { rows, columns }),
        _ => Err(format!("a terminal of {} by {}: each is 1 to 65 535", size.rows, size.columns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(change: impl FnOnce(&mut Execution)) -> Result<Wanted, String> {
        let mut begin =
            Execution { name: "web".to_owned(), command: vec!["ls".to_owned()], ..Default::default() };
        change(&mut begin);
        Wanted::parse(begin).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_asked_for_is_held_to_its_limits_at_their_edge() {
        assert!(wanted(|it| it.timeout_ms = TIMEOUT_MS_MAX).is_ok());
        assert!(wanted(|it| it.timeout_ms = TIMEOUT_MS_MAX + 1).unwrap_err().contains("timeout_ms"));
        assert!(wanted(|it| it.command.clear()).unwrap_err().contains("without a name"));
        assert!(wanted(|it| it.cwd = Some("a/b".to_owned())).is_err());
        for (rows, columns, fits) in [(1, 65_535, true), (0, 80, false), (24, 65_536, false)] {
            let size = TerminalSize { rows, columns };
            assert_eq!(wanted(|it| it.terminal = Some(size)).is_ok(), fits, "{rows} {columns}");
        }
    }

    #[test]
    fn a_name_is_on_record_and_of_arguments_a_hash() {
        let logged = |argument: &str| {
            wanted(|it| it.command = vec!["x".repeat(65), argument.to_owned()]).unwrap().logged()
        };
        let [(_, name), (_, hash)] = logged("secret");
        assert_eq!(name, "x".repeat(64));
        assert!(!hash.contains("secret") && hash != logged("other")[1].1);
    }
}
