//! Command lines: prefixes, words, what is run before, after, to reload and to stop.

use super::{Work, plain_path};
use crate::{
    manifest::{Folder, Step},
    unit::{Setting, value, words},
};

/// Folders in which systemd looks for a program without a path.
const SEARCHED: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// One command of an Exec line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    words: Vec<String>,
    /// `-`
    may_fail: bool,
    /// `+`: as root, outside the sandbox.
    full: bool,
    /// `!` or `!!`: as root, inside.
    elevated: bool,
    /// `:`
    verbatim: bool,
    /// `@`: the second word is the name that the program is told of itself.
    renamed: bool,
}

/// `Some` if the words send a signal to the main process; the error names a signal that a manifest does not know.
pub(crate) fn kill_of(words: &[String]) -> Option<Result<&'static str, String>> {
    let (program, rest) = words.split_first()?;
    if program.rsplit('/').next() != Some("kill") {
        return None;
    }
    let (target, options) = rest.split_last()?;
    if target != "$MAINPID" && target != "${MAINPID}" {
        return None;
    }
    let name = match options {
        [] => "TERM",
        [option, name] if matches!(option.as_str(), "-s" | "--signal" | "-n") => name,
        [option] => option.strip_prefix("--signal=").or_else(|| option.strip_prefix('-'))?,
        _ => return None,
    };
    Some(value::signal(name).ok_or_else(|| format!("the signal {name} cannot be named in a manifest")))
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Work<'_> {
    /// Splits an Exec line at its separate `;`, reads prefixes, puts specifiers in.
    fn lines(&mut self, one: &Setting) -> Option<Vec<Line>> {
        let all = match words::split(&one.value) {
            Ok(words) => words,
            Err(why) => {
                self.refused(one, format!("the command line cannot be read: {why}"));
                return None;
            }
        };
        let mut lines = Vec::new();
        for part in all.split(|word| word.plain && word.text == ";").filter(|part| !part.is_empty()) {
            let mut line = Line::default();
            for (index, word) in part.iter().enumerate() {
                let mut text = word.text.as_str();
                if index == 0 {
                    while let Some(prefix) = text.chars().next().filter(|c| "-@:+!".contains(*c)) {
                        match prefix {
                            '-' => line.may_fail = true,
                            '@' => line.renamed = true,
                            ':' => line.verbatim = true,
                            '+' => line.full = true,
                            _ => line.elevated = true,
                        }
                        text = text.get(1..).unwrap_or_default();
                    }
                }
                line.words.push(self.put_in(one, text)?);
            }
            if let (true, [program, own, ..]) = (line.renamed, line.words.as_slice()) {
                if program.rsplit('/').next() != own.rsplit('/').next() {
                    let why =
                        format!("the program would be told that it is {own:?}; it is told its path here");
                    self.refused(one, why);
                }
                line.words.remove(1);
            }
            lines.push(line);
        }
        if lines.is_empty() {
            self.refused(one, "it names no command");
            return None;
        }
        Some(lines)
    }

    /// The program of a line by its path, and its words with variables put in.
    fn command(&mut self, one: &Setting, line: &Line) -> Option<Vec<String>> {
        let (program, rest) = line.words.split_first()?;
        let program = match program.starts_with('/') {
            true => program.clone(),
            false => {
                let mut places = SEARCHED.iter().map(|folder| format!("{folder}/{program}"));
                let Some(found) = places.find(|path| self.host.exists(path)) else {
                    let why =
                        format!("{program:?} is no absolute path, and is in none of {}", SEARCHED.join(" "));
                    self.refused(one, why);
                    return None;
                };
                found
            }
        };
        if program.split('/').any(|part| part == "..") {
            self.refused(one, "a program is named by an absolute path without `..`");
            return None;
        }
        let mut words = vec![plain_path(&program)];
        if line.verbatim {
            words.extend(rest.iter().cloned());
            return Some(words);
        }
        let mut found = Vec::new();
        match self.variables.put_in(rest, &mut found) {
            Ok(rest) => words.extend(rest),
            Err(why) => {
                self.refused(one, why);
                return None;
            }
        }
        self.say_found(one, found);
        Some(words)
    }

    /// All commands of the unit; false if there is no program to run.
    pub(super) fn commands(&mut self) -> bool {
        let once = self.unit.last("Service", "Type").is_some_and(|one| one.value == "oneshot");
        let permissions_start_only = match self.service("PermissionsStartOnly") {
            Some(one) => {
                let on = self.truth(&one).unwrap_or(false);
                if on && !self.as_root {
                    self.approximated(
                        &one,
                        "commands before and after run as the service's user; those that need root are named",
                    );
                } else {
                    self.ignored(&one, "commands before and after run as the service's user in any case");
                }
                on
            }
            None => false,
        };
        if let Some(one) = self.service("RootDirectoryStartOnly") {
            self.ignored(&one, "no other root is set");
        }
        for one in self.unit.list("Service", "ExecStartPre") {
            self.step(&one, permissions_start_only, true);
        }
        let complete = self.start(once);
        for one in self.unit.list("Service", "ExecStartPost") {
            self.step(&one, permissions_start_only, false);
        }
        let (signal, command) = self.ending("ExecReload", "reload");
        (self.manifest.program.reload_signal, self.manifest.program.reload) = (signal, command);
        let (signal, command) = self.ending("ExecStop", "stop");
        (self.manifest.program.stop_signal, self.manifest.program.stop) = (signal, command);
        complete
    }

    fn start(&mut self, once: bool) -> bool {
        let mut all: Vec<(Setting, Line)> = Vec::new();
        let mut readable = true;
        for one in self.unit.list("Service", "ExecStart") {
            let lines = self.lines(&one);
            readable &= lines.is_some();
            all.extend(lines.into_iter().flatten().map(|line| (one.clone(), line)));
        }
        if !readable {
            all.dedup_by(|(one, _), (before, _)| one == before);
            for (one, _) in all {
                self.refused(&one, "another ExecStart= cannot be read, and a part of them is not run");
            }
            return false;
        }
        if !once && all.len() > 1 {
            for (one, _) in all.split_off(1) {
                self.refused(&one, "only Type=oneshot has several commands");
            }
        }
        let Some((one, line)) = all.pop() else {
            let why = "there is no ExecStart=, so there is no program to run; no manifest is made";
            self.whole(crate::report::Fate::Refused, why);
            return false;
        };
        for (one, line) in all {
            self.step_of(&one, &line, true);
        }
        let Some(command) = self.command(&one, &line) else { return false };
        let mut command = command.into_iter();
        self.manifest.program.image = command.next().unwrap_or_default();
        self.manifest.program.args = command.collect();
        self.mapped(&one, "[program] image and args");
        if line.may_fail {
            self.approximated(&one, "`-`: a start that fails counts as a failed one here");
        }
        if line.full || line.elevated {
            self.approximated(
                &one,
                "`+` or `!`: the program runs as root, with the privileges of the manifest, in the sandbox",
            );
        }
        true
    }

    fn step(&mut self, one: &Setting, as_root: bool, before: bool) {
        let Some(lines) = self.lines(one) else { return };
        for mut line in lines {
            line.full |= as_root;
            self.step_of(one, &line, before);
        }
    }

    fn step_of(&mut self, one: &Setting, line: &Line, before: bool) {
        if let Some(sent) = kill_of(&line.words) {
            let why = match sent {
                Ok(_) => "the main process gets no signal at its start",
                Err(_) => "the main process gets no signal at its start, and this one cannot be named",
            };
            self.refused(one, why);
            return;
        }
        let Some(command) = self.command(one, line) else { return };
        let folders = folders_of(&command);
        let rootless = (line.full || line.elevated) && !self.as_root;
        if let Some(made) = &folders {
            for folder in &made.folders {
                self.folder(folder.clone());
            }
            let own = self.manifest.program.user.as_deref().and_then(|user| user.split(':').next());
            if rootless && made.owner.as_deref().is_none_or(|owner| Some(owner) == own) {
                self.mapped(
                    one,
                    "[program] folders: the folder is made before the start, for the service's user",
                );
                return;
            }
        }
        if rootless {
            self.refused(one, "it would run as root before a program that does not; nothing of a service does here: do it once, by hand");
            return;
        }
        let step = Step { command, may_fail: line.may_fail };
        if before {
            self.manifest.program.before.push(step);
        } else {
            self.manifest.program.after.push(step);
        }
        let key = if before { "before" } else { "after" };
        match folders {
            Some(_) => self.mapped(one, format!("[program] {key}, and a folder of its own to make it in")),
            None => self.mapped(one, format!("[program] {key}")),
        }
    }

    /// `ExecReload=` and `ExecStop=`: a signal, or one command.
    fn ending(&mut self, key: &str, name: &str) -> (Option<&'static str>, Vec<String>) {
        let mut all: Vec<(Setting, Line)> = Vec::new();
        for one in self.unit.list("Service", key) {
            let Some(lines) = self.lines(&one) else { continue };
            all.extend(lines.into_iter().map(|line| (one.clone(), line)));
        }
        let mut signal = None;
        let mut commands: Vec<(Setting, Line, Vec<String>)> = Vec::new();
        for (one, line) in all {
            match kill_of(&line.words) {
                Some(Ok(sent)) => {
                    self.mapped(&one, format!("[program] {name}_signal"));
                    signal = Some(sent);
                }
                Some(Err(why)) => self.refused(&one, why),
                None => {
                    let Some(command) = self.command(&one, &line) else { continue };
                    commands.push((one, line, command));
                }
            }
        }
        if signal.is_some() {
            for (one, ..) in &commands {
                let why = format!(
                    "a signal follows it, and {name} is one or the other: it is not run; do it before you {name}"
                );
                self.refused(one, why);
            }
            return (signal, Vec::new());
        }
        for (one, line, _) in &commands {
            if (line.full || line.elevated) && !self.as_root {
                self.approximated(one, "`+` or `!`: it runs as the service's user");
            }
        }
        if commands.len() < 2 {
            for (one, line, _) in &commands {
                self.mapped(one, format!("[program] {name}"));
                if line.may_fail && name == "reload" {
                    self.approximated(one, "`-`: a reload that fails is said to have failed");
                }
            }
            return (None, commands.pop().map(|(_, _, command)| command).unwrap_or_default());
        }
        let mut script = String::new();
        for (one, line, command) in &commands {
            self.approximated(
                one,
                format!("[program] {name}: its commands are run one after the other by one /bin/sh"),
            );
            let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
            let joint = if script.is_empty() { "" } else { " && " };
            let command = words.join(" ");
            script.push_str(joint);
            script.push_str(&if line.may_fail { format!("{{ {command} || :; }}") } else { command });
        }
        (None, vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
    }

    /// One more folder of its own, unless it is there.
    pub(super) fn folder(&mut self, folder: Folder) {
        let folders = &mut self.manifest.program.folders;
        if !folders.iter().any(|known| known.path == folder.path) {
            folders.push(folder);
        }
    }
}

struct Made {
    folders: Vec<Folder>,
    owner: Option<String>,
}

/// What `install -d` and `mkdir` make below the places where a service has folders.
fn folders_of(command: &[String]) -> Option<Made> {
    let (program, rest) = command.split_first()?;
    let install = match program.rsplit('/').next()? {
        "install" => true,
        "mkdir" => false,
        _ => return None,
    };
    let (mut mode, mut owner, mut makes, mut paths) = ("0755".to_owned(), None, !install, Vec::new());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-m" | "--mode" => mode = value::octal(rest.next()?)?,
            "-o" if install => owner = Some(rest.next()?.clone()),
            "-g" if install => {
                rest.next()?;
            }
            "-d" if install => makes = true,
            "-Z" | "-v" | "-p" => {}
            path if path.starts_with('/') => paths.push(plain_path(path)),
            _ => return None,
        }
    }
    let below = ["/run/", "/var/lib/", "/var/log/", "/var/cache/"];
    let legal = paths.iter().all(|path| {
        below.iter().any(|root| path.starts_with(root))
            && !path.split('/').any(|part| part == "..")
            && !path.starts_with("/run/bailiwick")
    });
    if !makes || paths.is_empty() || !legal {
        return None;
    }
    let folders = paths.into_iter().map(|path| Folder { path, mode: mode.clone() }).collect();
    Some(Made { folders, owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_signal_to_the_main_process_is_known_in_its_forms() {
        let check = |words: &[&str], expected: Option<&str>| {
            assert_eq!(kill_of(&owned(words)).and_then(Result::ok), expected, "{words:?}");
        };
        check(&["/bin/kill", "-HUP", "$MAINPID"], Some("hup"));
        check(&["/bin/kill", "-s", "HUP", "${MAINPID}"], Some("hup"));
        check(&["/bin/kill", "--signal=SIGUSR2", "$MAINPID"], Some("usr2"));
        check(&["kill", "$MAINPID"], Some("term"));
        check(&["/bin/kill", "-HUP", "17"], None);
        check(&["/bin/echo", "$MAINPID"], None);
        assert!(kill_of(&owned(&["/bin/kill", "-s", "STOP", "$MAINPID"])).unwrap().is_err());
    }

    #[test]
    fn what_makes_a_folder_is_known() {
        let made = folders_of(&owned(&[
            "/usr/bin/install",
            "-Z",
            "-m",
            "02755",
            "-o",
            "tor",
            "-g",
            "tor",
            "-d",
            "/var/run/tor",
        ]));
        let made = made.unwrap();
        assert_eq!(made.folders, [Folder { path: "/run/tor".into(), mode: "2755".into() }]);
        assert_eq!(made.owner.as_deref(), Some("tor"));
        let made = folders_of(&owned(&["/bin/mkdir", "-m", "740", "-p", "/run/a", "/var/log/b"])).unwrap();
        assert_eq!(made.folders.len(), 2);
        for other in
            [&["/bin/mkdir", "/srv/x"][..], &["/usr/bin/install", "a", "/run/b"], &["/bin/mkdir", "-p"]]
        {
            assert!(folders_of(&owned(other)).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(quoted("/bin/x"), "/bin/x");
        assert_eq!(quoted("it's; a"), r"'it'\''s; a'");
        assert_eq!(quoted(""), "''");
    }
}
