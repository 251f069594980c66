//! One more process in a sandbox that stands already: what it is called with. All else is the plan's of its program.

use base::cbor;
use minicbor::{Decode, Encode};

use super::check::{PlanError, absolute, at_most, no_zero, variable};

/// Encoded; a packet has room for it and for what goes with it.
pub const EXECUTION_BYTES_MAX: usize = 48 * 1024;
/// Arguments, and environment entries, each.
pub const EXECUTION_ARGUMENTS_MAX: usize = 1024;

/// A command that somebody asks for while the program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Execution {
    /// With its own name first, which is looked up in the sandbox.
    #[n(0)]
    pub arguments: Vec<String>,
    /// Beside what the program was given; the same name replaces it.
    #[n(1)]
    pub environment: Vec<(String, String)>,
    /// None: the program's.
    #[n(2)]
    pub working_directory: Option<String>,
    /// Its standard input is a terminal, which becomes the one of its session.
    #[n(3)]
    pub terminal: bool,
}

impl Execution {
    pub fn validate(&self) -> Result<(), PlanError> {
        at_most("arguments", self.arguments.len(), EXECUTION_ARGUMENTS_MAX)?;
        at_most("environment entries", self.environment.len(), EXECUTION_ARGUMENTS_MAX)?;
        if self.arguments.first().is_none_or(String::is_empty) {
            return Err(PlanError::Contradiction("a command without a name"));
        }
        self.arguments.iter().try_for_each(|text| no_zero("an argument", text))?;
        self.environment.iter().try_for_each(|(name, value)| variable(name, value))?;
        self.working_directory.iter().try_for_each(|path| absolute("the working directory", path))
    }

    /// Refuses what is too large to be sent, or could not be carried out.
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        self.validate()?;
        let bytes = cbor::encode(self);
        at_most("bytes of a command", bytes.len(), EXECUTION_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Decodes and validates; the size is checked first.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        at_most("bytes of a command", bytes.len(), EXECUTION_BYTES_MAX)?;
        let execution: Self = cbor::decode(bytes)?;
        execution.validate()?;
        Ok(execution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Execution {
        Execution {
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_command_survives_encoding_and_its_limits_hold_at_their_edge() {
        let mut whole = of(&["sh", "-c", "true"]);
        whole.environment = vec![("A".to_owned(), "b".to_owned())];
        (whole.working_directory, whole.terminal) = (Some("/tmp".to_owned()), true);
        assert_eq!(Execution::decode(&whole.encode().unwrap()), Ok(whole));
        let of_size = |bytes: usize| of(&["x", &"y".repeat(bytes)]).encode().map(|bytes| bytes.len());
        let frame = of_size(40_000).unwrap() - 40_000;
        assert_eq!(of_size(EXECUTION_BYTES_MAX - frame), Ok(EXECUTION_BYTES_MAX));
        assert!(matches!(of_size(EXECUTION_BYTES_MAX - frame + 1), Err(PlanError::TooMany { .. })));
        assert!(of(&["x"; EXECUTION_ARGUMENTS_MAX]).validate().is_ok());
        assert!(of(&["x"; EXECUTION_ARGUMENTS_MAX + 1]).validate().is_err());
        let too_large = vec![0; EXECUTION_BYTES_MAX + 1];
        assert!(matches!(Execution::decode(&too_large), Err(PlanError::TooMany { .. })));
    }

    #[test]
    fn what_could_not_be_carried_out_is_refused() {
        assert!(of(&[]).validate().is_err() && of(&[""]).validate().is_err());
        assert!(of(&["a", "b\0c"]).validate().is_err());
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            let mut bad = of(&["a"]);
            bad.environment = vec![(name.to_owned(), value.to_owned())];
            assert!(bad.validate().is_err(), "{name:?} {value:?}");
        }
        for path in ["relative", "/a/../b"] {
            let bad = Execution { working_directory: Some(path.to_owned()), ..of(&["a"]) };
            assert!(bad.validate().is_err(), "{path}");
        }
    }
}
