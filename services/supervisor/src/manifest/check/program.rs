//! What the types of `[program]` do not say.

use base::PRIVILEGES;

use super::{
    super::limits::{
        AFTER_MAX, BEFORE_MAX, ENV_FILES_MAX, ENVIRONMENT_MAX, FOLDERS_MAX, FS_GRANTS_MAX, GROUPS_MAX,
        NAME_BYTES_MAX, SECRETS_MAX, TEXT_BYTES_MAX,
    },
    super::{ControlSignal, ProgramConfig, ProgramImage, Runs, ServiceType},
    Faults, arguments,
};

/// Where folders are made for a program.
const FOLDER_ROOTS: [&str; 4] = ["/run", "/var/lib", "/var/log", "/var/cache"];
/// Bytes of the name of a user or group, as `useradd` allows them.
const ACCOUNT_BYTES_MAX: usize = 32;

pub(super) fn check(faults: &mut Faults, program: &ProgramConfig, service_type: ServiceType) {
    if service_type != ServiceType::User {
        faults.add("program", "only a service of type User runs a foreign program");
    }
    faults.text("program.image", &program.image, TEXT_BYTES_MAX);
    let image = ProgramImage::parse(&program.image);
    if let Err(text) = &image {
        faults.add("program.image", text.clone());
    }
    arguments(faults, "program.entrypoint", &program.entrypoint);
    if !program.entrypoint.is_empty() && matches!(image, Ok(ProgramImage::Path(_) | ProgramImage::File(_))) {
        faults.add("program.entrypoint", "only a container image has one; a program has `args`");
    }
    arguments(faults, "program.args", &program.args);
    faults.count("program.env", program.env.len(), ENVIRONMENT_MAX);
    for (name, value) in program.env.iter().take(ENVIRONMENT_MAX) {
        let key = format!("program.env.{name}");
        faults.text(&key, value, TEXT_BYTES_MAX);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['=', '\0']) {
            faults
                .add(&key, format!("a variable's name has 1 to {NAME_BYTES_MAX} bytes without `=` and NUL"));
        }
    }
    if let Some(cwd) = &program.cwd {
        faults.text("program.cwd", cwd, TEXT_BYTES_MAX);
        if !cwd.starts_with('/') {
            faults.add("program.cwd", format!("a working folder is an absolute path, not {cwd:?}"));
        }
    }
    faults.count("program.fs", program.fs.len(), FS_GRANTS_MAX);
    for (index, grant) in program.fs.iter().enumerate().take(FS_GRANTS_MAX) {
        faults.text(&format!("program.fs[{index}]"), &grant.path, TEXT_BYTES_MAX);
    }
    identity(faults, program);
    commands(faults, program);
    files(faults, program);
}

fn identity(faults: &mut Faults, program: &ProgramConfig) {
    if let Some(user) = &program.user {
        account(faults, "program.user", user.split_once(':').map_or(user.as_str(), |(user, _)| user));
        if let Some((_, group)) = user.split_once(':') {
            account(faults, "program.user", group);
        }
    }
    faults.count("program.groups", program.groups.len(), GROUPS_MAX);
    for (index, group) in program.groups.iter().enumerate().take(GROUPS_MAX) {
        account(faults, &format!("program.groups[{index}]"), group);
    }
    if !program.groups.is_empty() && program.user.is_none() {
        faults.add("program.groups", "groups of the host belong to a user of the host; give program.user");
    }
    faults.count("program.privileges", program.privileges.len(), PRIVILEGES.len());
    for (index, name) in program.privileges.iter().enumerate().take(PRIVILEGES.len()) {
        if !PRIVILEGES.contains(&name.as_str()) {
            let allowed = PRIVILEGES.join(", ");
            faults.add(
                format!("program.privileges[{index}]"),
                format!("{name:?} is no right that a program can keep; allowed are {allowed}"),
            );
        }
    }
    if !program.privileges.is_empty() && program.user.is_none() {
        faults.add(
            "program.privileges",
            "they need a user of the host; give program.user, for example \"root\"",
        );
    }
    if program.umask.is_some_and(|mask| mask.0 > 0o777) {
        faults.add("program.umask", "at most 0777 is allowed");
    }
}

/// A name or number of a user or a group.
fn account(faults: &mut Faults, key: &str, name: &str) {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > ACCOUNT_BYTES_MAX || !name.bytes().all(legal) || name.starts_with('-')
    {
        faults.add(
            key,
            format!("{name:?} is no user or group; allowed are 1 to {ACCOUNT_BYTES_MAX} bytes of A-Z a-z 0-9 _ - ."),
        );
    }
}

fn commands(faults: &mut Faults, program: &ProgramConfig) {
    faults.count("program.before", program.before.len(), BEFORE_MAX);
    for (index, one) in program.before.iter().enumerate().take(BEFORE_MAX) {
        command(faults, &format!("program.before[{index}].command"), &one.command);
    }
    faults.count("program.after", program.after.len(), AFTER_MAX);
    for (index, one) in program.after.iter().enumerate().take(AFTER_MAX) {
        command(faults, &format!("program.after[{index}].command"), &one.command);
    }
    for (key, words) in [("program.stop", &program.stop), ("program.reload", &program.reload)] {
        if !words.is_empty() {
            command(faults, key, words);
        }
    }
    if !program.reload.is_empty() && program.reload_signal.is_some() {
        faults.add("program.reload_signal", "a reload is a command or a signal, not both");
    }
    if program.reload_signal == Some(ControlSignal::Kill) {
        faults.add("program.reload_signal", "`kill` ends it; allowed are term quit int hup usr1 usr2 winch");
    }
    if let Some(path) = &program.pid_file {
        inside(faults, "program.pid_file", path);
        if program.runs != Runs::Forks {
            faults.add("program.pid_file", "only a program with runs = \"forks\" has one");
        }
    }
}

fn command(faults: &mut Faults, key: &str, words: &[String]) {
    arguments(faults, key, words);
    match words.first() {
        Some(path) => inside(faults, key, path),
        None => faults.add(key, "a command has a program"),
    }
}

fn files(faults: &mut Faults, program: &ProgramConfig) {
    faults.count("program.env_files", program.env_files.len(), ENV_FILES_MAX);
    for (index, file) in program.env_files.iter().enumerate().take(ENV_FILES_MAX) {
        inside(faults, &format!("program.env_files[{index}].path"), &file.path);
    }
    faults.count("program.secrets", program.secrets.len(), SECRETS_MAX);
    for (index, secret) in program.secrets.iter().enumerate().take(SECRETS_MAX) {
        let key = format!("program.secrets[{index}]");
        inside(faults, &format!("{key}.path"), &secret.path);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b':');
        let name = &secret.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) || name.starts_with('.')
        {
            faults.add(
                format!("{key}.name"),
                format!("{name:?} is no name of a file; allowed are 1 to {NAME_BYTES_MAX} bytes of A-Z a-z 0-9 _ - . @ :, no point first"),
            );
        }
        if program.secrets.iter().take(index).any(|other| other.name == *name) {
            faults.add(format!("{key}.name"), format!("{name:?} is named twice"));
        }
    }
    faults.count("program.folders", program.folders.len(), FOLDERS_MAX);
    for (index, folder) in program.folders.iter().enumerate().take(FOLDERS_MAX) {
        let key = format!("program.folders[{index}].path");
        inside(faults, &key, &folder.path);
        let below = |root: &str| folder.path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
        if !FOLDER_ROOTS.iter().any(|root| below(root)) || folder.path.starts_with("/run/bailiwick") {
            let roots = FOLDER_ROOTS.join(", ");
            faults.add(&key, format!("a folder lies below one of {roots}, not at {:?}", folder.path));
        }
    }
}

/// An absolute path without detours.
fn inside(faults: &mut Faults, key: &str, path: &str) {
    faults.text(key, path, TEXT_BYTES_MAX);
    let mut parts = path.split('/').skip(1);
    if !path.starts_with('/') || parts.any(|part| matches!(part, "" | "." | "..")) {
        faults.add(key, format!("an absolute path without `.`, `..` and `//` is needed, not {path:?}"));
    }
}
