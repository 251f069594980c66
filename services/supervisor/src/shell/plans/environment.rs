//! What stands in a program's environment: what its manifest says, what its files say, and a few words of the node.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base::IdentityId;
use kit::env::IDENTITY_VARIABLE;
use thiserror::Error;

use super::{
    host_file::{Bounds, open_within},
    image::ServiceImage,
};
use crate::{
    manifest::{
        EnvFile, HealthCheck, ProgramConfig, ServiceManifest,
        limits::{ENV_FILE_BYTES_MAX, ENVIRONMENT_MAX, NAME_BYTES_MAX},
    },
    shell::sockets::{self, Purpose, Socket},
};

/// Found by name as on any system.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

#[derive(Debug, Error)]
pub(in crate::shell) enum EnvironmentFault {
    #[error("cannot read the variables in {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}:{line}: this is no variable; a line is NAME=VALUE, a comment starts with # or ;", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("{} has more than {ENVIRONMENT_MAX} variables", path.display())]
    TooMany { path: PathBuf },
    #[error("{} is longer than {ENV_FILE_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
}

pub(super) fn environment(
    manifest: &ServiceManifest,
    program: &ProgramConfig,
    root: Option<&ServiceImage>,
    sockets: &[Socket],
    hidden: &[String],
) -> Result<Vec<(String, String)>, EnvironmentFault> {
    let mut environment: Vec<(String, String)> =
        program.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    // A later file wins over an earlier one, and the manifest over all.
    for file in program.env_files.iter().rev() {
        for (name, value) in of_file(file, Bounds { program, hidden })?.into_iter().rev() {
            unless_given(&mut environment, &name, &value);
        }
    }
    for (name, value) in root.into_iter().flat_map(ServiceImage::variables) {
        unless_given(&mut environment, name, value);
    }
    unless_given(&mut environment, "PATH", PATH);
    unless_given(&mut environment, "HOME", kit::env::STATE_FOLDER);
    let name = manifest.service.name.as_str();
    let own = |socket: &&Socket| socket.purpose == Purpose::Notify && socket.client.as_deref() == Some(name);
    if let Some(inside) = sockets.iter().find(own).and_then(Socket::inside) {
        unless_given(&mut environment, "NOTIFY_SOCKET", &inside);
    }
    if let Some((variable, value)) = sockets::workload_api(sockets, name) {
        unless_given(&mut environment, &variable, &value);
    }
    // How often it is to say that it lives; with no WATCHDOG_PID, whichever of its processes says it.
    if let HealthCheck::SdNotify { watchdog: Some(watchdog) } = manifest.health.check(true) {
        unless_given(&mut environment, "WATCHDOG_USEC", &watchdog.as_micros().to_string());
    }
    Ok(environment)
}

/// Who calls: only who may call somebody has to say so. The node's word, whatever the manifest says.
pub(in crate::shell) fn identify(
    environment: &mut Vec<(String, String)>,
    manifest: &ServiceManifest,
    identity: Option<IdentityId>,
) {
    environment.retain(|(name, _)| name != IDENTITY_VARIABLE);
    if let Some(identity) = identity.filter(|_| !manifest.dependencies.is_empty()) {
        environment.push((IDENTITY_VARIABLE.to_owned(), identity.to_string()));
    }
}

fn unless_given(environment: &mut Vec<(String, String)>, variable: &str, value: &str) {
    if !environment.iter().any(|(known, _)| known == variable) {
        environment.push((variable.to_owned(), value.to_owned()));
    }
}

fn of_file(file: &EnvFile, bounds: Bounds<'_>) -> Result<Vec<(String, String)>, EnvironmentFault> {
    let path = Path::new(&file.path);
    let failed = |source| EnvironmentFault::File { path: path.to_owned(), source };
    let opened = match open_within(path, bounds) {
        Err(error) if file.optional && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    let mut text = String::new();
    let length = opened.take(ENV_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > ENV_FILE_BYTES_MAX {
        return Err(EnvironmentFault::TooLong { path: path.to_owned() });
    }
    parse(path, &text)
}

/// The form of systemd's `EnvironmentFile`: a backslash at the end of a line joins the next, a value may stand in single
/// quotes (as it is) or double ones (with backslashes before `"`, `\`, `` ` `` and `$`).
fn parse(path: &Path, text: &str) -> Result<Vec<(String, String)>, EnvironmentFault> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut whole = line.trim_start().to_owned();
        if whole.is_empty() || whole.starts_with(['#', ';']) {
            continue;
        }
        while whole.ends_with('\\') {
            whole.pop();
            whole.push_str(lines.next().map_or("", |(_, next)| next));
        }
        let wrong = || EnvironmentFault::Line { path: path.to_owned(), line: number + 1 };
        let (name, value) = whole.split_once('=').ok_or_else(wrong)?;
        let name = name.trim_end();
        let legal =
            |(n, b): (usize, u8)| b.is_ascii_alphabetic() || b == b'_' || (n > 0 && b.is_ascii_digit());
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().enumerate().all(legal) {
            return Err(wrong());
        }
        if found.len() >= ENVIRONMENT_MAX {
            return Err(EnvironmentFault::TooMany { path: path.to_owned() });
        }
        found.push((name.to_owned(), unquote(value.trim()).ok_or_else(wrong)?));
    }
    Ok(found)
}

/// None if a quote is not closed or the value holds a NUL.
fn unquote(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut quote: Option<char> = None;
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (_, '\0') => return None,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (Some('"'), '\\') if matches!(characters.peek(), Some('"' | '\\' | '`' | '$')) => {
                plain.extend(characters.next());
            }
            (None, '\\') => plain.extend(characters.next()),
            (_, other) => plain.push(other),
        }
    }
    quote.is_none().then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, EnvironmentFault> {
        parse(Path::new("/etc/default/x"), text)
    }

    #[test]
    fn variables_are_read_as_systemd_reads_them() {
        let text = "# comment\n; another\n\nA=1\n B = two words \nC='as $is \\n'\nD=\"a \\\"b\\\" \\$c\"\nE=x\\\ny\nF=\nG=a\\ b\n";
        let pairs = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "as $is \\n"),
            ("D", "a \"b\" $c"),
            ("E", "xy"),
            ("F", ""),
            ("G", "a b"),
        ];
        assert_eq!(parsed(text).unwrap(), pairs.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn who_may_call_somebody_is_told_who_it_is_once() {
        let manifest = |dependencies: &str| {
            let text = format!(
                "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
                 {dependencies}[program]\nimage = \"/bin/true\"\n"
            );
            crate::manifest::parse("x.toml", &text).unwrap().manifest
        };
        let (alone, calls) =
            (manifest(""), manifest("[[dependencies]]\nname = \"network\"\nrequired = false\n"));
        let me = IdentityId([7; 32]);
        let given = || vec![(IDENTITY_VARIABLE.to_owned(), "another".to_owned())];
        for (manifest, identity, expected) in
            [(&alone, Some(me), None), (&calls, None, None), (&calls, Some(me), Some(me.to_string()))]
        {
            let mut environment = given();
            identify(&mut environment, manifest, identity);
            let told: Vec<String> = environment.into_iter().map(|(_, value)| value).collect();
            assert_eq!(told, Vec::from_iter(expected));
        }
    }

    #[test]
    fn what_is_no_variable_is_named_with_its_line() {
        for (text, wrong) in [("A=1\nexport B=2", 2), ("novalue", 1), ("1A=x", 1), ("A=\"open", 1), ("=x", 1)]
        {
            assert!(
                matches!(parsed(text), Err(EnvironmentFault::Line { line, .. }) if line == wrong),
                "{text:?}"
            );
        }
    }

    #[test]
    fn files_are_bounded() {
        let many = |count: usize| (0..count).map(|n| format!("V{n}=\n")).collect::<String>();
        assert_eq!(parsed(&many(ENVIRONMENT_MAX)).unwrap().len(), ENVIRONMENT_MAX);
        assert!(matches!(parsed(&many(ENVIRONMENT_MAX + 1)), Err(EnvironmentFault::TooMany { .. })));
        let program: ProgramConfig = toml::from_str("image = \"/x\"").unwrap();
        let bounds = Bounds { program: &program, hidden: &[] };
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("env");
        let file = EnvFile { path: path.to_string_lossy().into_owned(), optional: true };
        assert_eq!(of_file(&file, bounds).unwrap(), []);
        let comment = |length: u64| "#".repeat(usize::try_from(length).unwrap());
        std::fs::write(&path, comment(ENV_FILE_BYTES_MAX)).unwrap();
        assert_eq!(of_file(&file, bounds).unwrap(), []);
        std::fs::write(&path, comment(ENV_FILE_BYTES_MAX + 1)).unwrap();
        assert!(matches!(of_file(&file, bounds), Err(EnvironmentFault::TooLong { .. })));
        assert!(of_file(&EnvFile { path: "/absent".to_owned(), optional: false }, bounds).is_err());
    }
}
