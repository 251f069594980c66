//! Variables: what the manifest hands on, and what stands in command lines.

use super::Work;
use crate::{
    manifest::EnvFile,
    report::Fate,
    unit::{Setting, words},
};

/// Set by systemd for a process, and known only then.
const AT_RUN_TIME: [&str; 18] = [
    "MAINPID",
    "MANAGERPID",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SERVICE_RESULT",
    "EXIT_CODE",
    "EXIT_STATUS",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "CREDENTIALS_DIRECTORY",
    "TRIGGER_UNIT",
    "TRIGGER_PATH",
    "MEMORY_PRESSURE_WATCH",
    "SYSTEMD_EXEC_PID",
];

/// What is known of the variables when the import is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    /// Name, value, and the file that it comes from, if it is one that can change.
    known: Vec<(String, String, Option<String>)>,
    /// Files that had to be there and are not: what they set is not known.
    missing: Vec<String>,
}

/// What a variable in a command line came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// From a file: name, value, file.
    Frozen(String, String, String),
    /// Nobody sets it.
    Unset(String),
}

impl Variables {
    pub(crate) fn set(&mut self, name: &str, value: &str, file: Option<&str>) {
        self.known.retain(|(known, ..)| known != name);
        self.known.push((name.to_owned(), value.to_owned(), file.map(str::to_owned)));
    }

    fn unset(&mut self, name: &str) {
        self.known.retain(|(known, ..)| known != name);
    }

    fn get(&self, name: &str) -> Option<&(String, String, Option<String>)> {
        self.known.iter().find(|(known, ..)| known == name)
    }

    /// The value of a variable; nothing known of it is the empty text, unless nothing can be known.
    fn value(&self, name: &str, found: &mut Vec<Found>) -> Result<String, String> {
        match self.get(name) {
            Some((name, value, file)) => {
                if let Some(file) = file {
                    found.push(Found::Frozen(name.clone(), value.clone(), file.clone()));
                }
                Ok(value.clone())
            }
            None if AT_RUN_TIME.contains(&name) => {
                Err(format!("${name} is known only when the service runs; write it another way"))
            }
            None => match self.missing.first() {
                Some(file) => Err(format!(
                    "${name} may stand in {file}, which cannot be read here; import on the host that has it"
                )),
                None => {
                    found.push(Found::Unset(name.to_owned()));
                    Ok(String::new())
                }
            },
        }
    }

    /// Puts variables into the words of a command, as systemd does: `${X}` anywhere in a word stays in it, `$X` as a
    /// whole word becomes as many words as it has, `$$` is a dollar.
    pub(crate) fn put_in(&self, given: &[String], found: &mut Vec<Found>) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        for word in given {
            let bare = word.strip_prefix('$').filter(|name| is_name(name));
            match bare {
                Some(name) => out.extend(words::texts(&self.value(name, found)?)?),
                None => out.push(self.braced(word, found)?),
            }
            if out.len() > crate::limits::WORDS_MAX {
                return Err(format!("it grows beyond {} words", crate::limits::WORDS_MAX));
            }
        }
        Ok(out)
    }

    fn braced(&self, word: &str, found: &mut Vec<Found>) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = word;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            match name.filter(|(name, _)| is_name(name)) {
                Some((name, after)) => {
                    out.push_str(&self.value(name, found)?);
                    rest = after;
                }
                None => out.push('$'),
            }
            if out.len() > crate::limits::EXPANDED_BYTES_MAX {
                return Err(format!("it grows beyond {} bytes", crate::limits::EXPANDED_BYTES_MAX));
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn is_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit())
}

impl Work<'_> {
    pub(super) fn environment_in(&mut self, section: &str) {
        let mut own: Vec<(String, String, Setting)> = Vec::new();
        for one in self.unit.list(section, "Environment") {
            let Some(words) = self.words(&one) else { continue };
            let (pairs, wrong): (Vec<_>, Vec<_>) = words
                .into_iter()
                .partition(|word| word.split_once('=').is_some_and(|(name, _)| is_name(name)));
            for word in wrong {
                self.refused(&one, format!("{word:?} is no NAME=VALUE"));
            }
            for (name, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
                own.retain(|(known, ..)| known != name);
                own.push((name.to_owned(), value.to_owned(), one.clone()));
                self.variables.set(name, value, None);
            }
            if !pairs.is_empty() {
                self.mapped(&one, "[program.env]");
            }
        }
        for one in self.unit.list(section, "EnvironmentFile") {
            self.environment_file(&one);
        }
        for one in self.unit.list(section, "UnsetEnvironment") {
            let Some(words) = self.words(&one) else { continue };
            for word in &words {
                let name = word.split('=').next().unwrap_or(word);
                own.retain(|(known, ..)| known != name);
                self.variables.unset(name);
            }
            self.mapped(&one, "left out of [program.env]");
        }
        for (name, value, one) in own {
            match self.variables.get(&name) {
                // A file has the last word; the manifest would have it otherwise.
                Some((_, _, Some(file))) => {
                    let how = format!("{name} is left to {file}, which sets it too");
                    self.approximated(&one, how);
                }
                _ => self.manifest.program.env.push((name, value)),
            }
        }
    }

    fn environment_file(&mut self, one: &Setting) {
        let Some(text) = self.expanded(one) else { return };
        let (path, optional) = match text.strip_prefix('-') {
            Some(path) => (path, true),
            None => (text.as_str(), false),
        };
        let climbs = path.split('/').any(|part| part == "..");
        if !path.starts_with('/') || climbs || path.contains(['*', '?', '[']) {
            self.variables.missing.push(path.to_owned());
            self.refused(one, "a file is named by its absolute path, without a pattern; name each");
            return;
        }
        let path = super::plain_path(path);
        match self.host.text(&path) {
            Some(Ok(text)) => {
                for (name, value) in words::environment_file(&text) {
                    self.variables.set(&name, &value, Some(&path));
                }
                self.mapped(one, "env_files");
            }
            None if optional => self.mapped(one, "env_files; there is no such file now"),
            None => {
                self.variables.missing.push(path.clone());
                self.approximated(
                    one,
                    "env_files; there is no such file here, and without it the service does not start",
                );
            }
            Some(Err(why)) => {
                self.variables.missing.push(path.clone());
                self.approximated(one, format!("env_files; it was not read here: {why}"));
            }
        }
        self.manifest.program.env_files.push(EnvFile { path, optional });
    }

    /// Says what came of the variables of a command.
    pub(super) fn say_found(&mut self, one: &Setting, found: Vec<Found>) {
        for found in found {
            let how = match found {
                Found::Frozen(name, value, file) => format!(
                    "${name} is {value:?} in {file} now, and stays so in the command: import again after a change"
                ),
                Found::Unset(name) => format!("${name} is set nowhere and stands for nothing"),
            };
            self.say(one, Fate::Approximated, how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_as_systemd_does() {
        let mut variables = Variables::default();
        variables.set("A", "one 'two three'", None);
        variables.set("E", "", Some("/f"));
        let check = |given: &[&str], expected: &[&str]| {
            let given: Vec<String> = given.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(variables.put_in(&given, &mut Vec::new()).unwrap(), expected);
        };
        check(&["x", "$A", "y"], &["x", "one", "two three", "y"]);
        check(&["x${A}y"], &["xone 'two three'y"]);
        check(&["x$A", "$$A", "$?", "a$$b", "$"], &["x$A", "$A", "$?", "a$b", "$"]);
        check(&["$E", "${E}"], &[""]);
        check(&["$NONE", "-${NONE}"], &["-"]);
        let mut found = Vec::new();
        let given = ["$E".to_owned(), "$NONE".to_owned()];
        variables.put_in(&given, &mut found).unwrap();
        let frozen = Found::Frozen("E".into(), String::new(), "/f".into());
        assert_eq!(found, [frozen, Found::Unset("NONE".into())]);
        assert!(variables.put_in(&["$MAINPID".to_owned()], &mut found).is_err());
    }

    #[test]
    fn what_may_stand_in_a_file_that_is_not_there_is_not_guessed() {
        let variables = Variables { missing: vec!["/f".into()], ..Variables::default() };
        assert!(variables.put_in(&["$X".to_owned()], &mut Vec::new()).unwrap_err().contains("/f"));
    }
}
