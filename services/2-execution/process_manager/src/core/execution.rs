//! A request to run one more command beside a program, checked.

use base::ProcessId;
use contracts::process_manager::v1 as pb;
use minicbor::{Decode, Encode};

use super::{
    ProcessError, WindowSize,
    limits::{LOGGED_NAME_BYTES_MAX, TIMEOUT_MS_MAX},
    request::{absolute, arguments, arguments_hash, environment, name},
};

/// What its monitor is told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Execution {
    /// With its own name, which is looked up in the sandbox.
    #[n(0)]
    pub command: Vec<String>,
    /// Beside what the program was given; the same name replaces it.
    #[n(1)]
    pub env: Vec<(String, String)>,
    /// None: the program's.
    #[n(2)]
    pub cwd: Option<String>,
    /// A terminal instead of three pipes.
    #[n(3)]
    pub terminal: Option<WindowSize>,
    /// 0: none.
    #[n(4)]
    pub timeout_ms: u64,
}

impl Execution {
    pub fn parse(begin: pb::Execution) -> Result<(ProcessId, Self), ProcessError> {
        let pb::Execution { pid, command, env, cwd, terminal, timeout_ms } = begin;
        let (first, rest) =
            command.split_first().ok_or_else(|| ProcessError::invalid("command", "no command is named"))?;
        name(first.clone())?;
        arguments(rest)?;
        cwd.iter().try_for_each(|folder| absolute("cwd", folder))?;
        if timeout_ms > TIMEOUT_MS_MAX {
            let text = format!("at most {TIMEOUT_MS_MAX} ms are allowed");
            return Err(ProcessError::invalid("timeout_ms", text));
        }
        let terminal = terminal.map(|size| WindowSize::parse(&size)).transpose()?;
        let env = environment(env)?;
        Ok((ProcessId(pid), Self { command, env, cwd, terminal, timeout_ms }))
    }

    /// What goes on record: the name, and a hash of the arguments, which may hold what must not be kept for ever.
    #[must_use]
    pub fn logged(&self) -> [(&'static str, String); 2] {
        let (name, rest) = self.command.split_first().map_or(("", &[][..]), |(name, rest)| (name, rest));
        let end = name.floor_char_boundary(LOGGED_NAME_BYTES_MAX);
        [
            ("command", name.get(..end).unwrap_or_default().to_owned()),
            ("arguments", arguments_hash(rest).to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(change: impl FnOnce(&mut pb::Execution)) -> Result<Execution, ProcessError> {
        let mut begin = pb::Execution { pid: 7, command: vec!["ls".to_owned()], ..Default::default() };
        change(&mut begin);
        Execution::parse(begin).map(|(_, execution)| execution)
    }

    #[test]
    fn limits_hold_at_their_edge() {
        assert!(begin(|it| it.timeout_ms = TIMEOUT_MS_MAX).is_ok());
        let field = |result: Result<Execution, ProcessError>| match result {
            Err(ProcessError::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(begin(|it| it.timeout_ms = TIMEOUT_MS_MAX + 1)), "timeout_ms");
        assert_eq!(field(begin(|it| it.command.clear())), "command");
        assert_eq!(field(begin(|it| it.command = vec![String::new()])), "name");
        assert_eq!(field(begin(|it| it.command.push("a\0b".to_owned()))), "args");
        assert_eq!(field(begin(|it| it.cwd = Some("a/b".to_owned()))), "cwd");
        assert_eq!(field(begin(|it| it.cwd = Some("/a/../b".to_owned()))), "cwd");
        assert_eq!(field(begin(|it| drop(it.env.insert("A=B".to_owned(), String::new())))), "env");
        let size = pb::WindowSize { rows: 65_536, columns: 1 };
        assert_eq!(field(begin(|it| it.terminal = Some(size))), "terminal");
    }

    #[test]
    fn a_name_is_on_record_and_of_arguments_a_hash() {
        let logged = |argument: &str| {
            let execution = begin(|it| it.command = vec!["x".repeat(65), argument.to_owned()]);
            execution.unwrap().logged().map(|(_, value)| value)
        };
        let [name, hash] = logged("secret");
        assert_eq!(name, "x".repeat(64));
        assert!(!hash.contains("secret") && hash != logged("other")[1]);
    }
}
