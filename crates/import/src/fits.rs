//! What the supervisor would refuse of a manifest. Units stay far below; what does not is no manifest here.

use crate::{Manifest, manifest::Program};

/// The supervisor's limits: `services/supervisor/src/manifest/limits.rs`.
const ARGUMENTS_MAX: usize = 256;
const ENVIRONMENT_MAX: usize = 256;
const FS_GRANTS_MAX: usize = 64;
const BEFORE_MAX: usize = 32;
const GROUPS_MAX: usize = 32;
const ENV_FILES_MAX: usize = 16;
const FOLDERS_MAX: usize = 32;
const SECRETS_MAX: usize = 64;
const DEPENDENCIES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 4095;
const MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// Variables that say what is handed over.
const OF_THE_NODE: [&str; 3] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

fn counts(manifest: &Manifest) -> [(&'static str, usize, usize); 10] {
    let program = &manifest.program;
    let check = &manifest.health.command;
    let longest = texts(program).chain(check.iter().map(String::as_str)).map(str::len).max().unwrap_or(0);
    let commands = commands(program).map(Vec::len).max().unwrap_or(0);
    let names = program.env.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    [
        ("arguments of a command", commands.max(program.args.len()).max(check.len()), ARGUMENTS_MAX),
        ("variables", program.env.len(), ENVIRONMENT_MAX),
        ("bytes of the name of a variable", names, NAME_BYTES_MAX),
        ("grants of `fs`", program.fs.len(), FS_GRANTS_MAX),
        ("commands around the program", program.before.len().max(program.after.len()), BEFORE_MAX),
        ("groups", program.groups.len(), GROUPS_MAX),
        ("files of variables", program.env_files.len(), ENV_FILES_MAX),
        ("folders", program.folders.len(), FOLDERS_MAX),
        ("secrets", program.secrets.len(), SECRETS_MAX),
        ("bytes of a path, an argument or a variable", longest, TEXT_BYTES_MAX),
    ]
}

fn commands(program: &Program) -> impl Iterator<Item = &Vec<String>> {
    let steps = program.before.iter().chain(&program.after).map(|step| &step.command);
    steps.chain([&program.stop, &program.reload, &program.entrypoint])
}

fn texts(program: &Program) -> impl Iterator<Item = &str> {
    let paths = program.folders.iter().map(|folder| &folder.path);
    let paths = paths.chain(program.env_files.iter().map(|file| &file.path));
    let paths = paths.chain(program.secrets.iter().map(|secret| &secret.path));
    let words = commands(program).flatten().chain(&program.args).chain(&program.fs);
    let values = program.env.iter().map(|(_, value)| value);
    let single = [Some(&program.image), program.cwd.as_ref(), program.pid_file.as_ref()];
    words.chain(paths).chain(values).chain(single.into_iter().flatten()).map(String::as_str)
}

/// Why the supervisor would not take it.
pub(crate) fn why_not(manifest: &Manifest) -> Option<String> {
    let nul = texts(&manifest.program).chain(manifest.health.command.iter().map(String::as_str));
    if nul.into_iter().any(|text| text.contains('\0')) {
        return Some("a text of it has a NUL byte; no manifest is made".to_owned());
    }
    if let Some((name, _)) =
        manifest.program.env.iter().find(|(name, _)| OF_THE_NODE.contains(&name.as_str()))
    {
        return Some(format!("the node sets {name} itself; no manifest is made"));
    }
    let over = counts(manifest).into_iter().find(|(_, count, max)| count > max);
    if let Some((what, count, max)) = over {
        return Some(format!("it would have {count} {what}, and {max} are the most; no manifest is made"));
    }
    if manifest.dependencies.len() > DEPENDENCIES_MAX {
        return Some(format!("it would have more than {DEPENDENCIES_MAX} dependencies; no manifest is made"));
    }
    let bytes = manifest.to_toml().len();
    (bytes > MANIFEST_BYTES_MAX).then(|| {
        format!("it would have {bytes} bytes, and {MANIFEST_BYTES_MAX} are the most; no manifest is made")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_supervisor_would_refuse_is_not_made() {
        let check = |change: fn(&mut Manifest, usize), max: usize| {
            let mut manifest = Manifest::default();
            change(&mut manifest, max);
            assert_eq!(why_not(&manifest), None);
            change(&mut manifest, max + 1);
            assert!(why_not(&manifest).is_some(), "{max}");
        };
        check(|manifest, count| manifest.program.args = vec![String::new(); count], ARGUMENTS_MAX);
        check(|manifest, count| manifest.program.stop = vec![String::new(); count], ARGUMENTS_MAX);
        check(|manifest, count| manifest.program.fs = vec![String::new(); count], FS_GRANTS_MAX);
        check(|manifest, count| manifest.program.groups = vec![String::new(); count], GROUPS_MAX);
        check(|manifest, bytes| manifest.program.args = vec!["x".repeat(bytes)], TEXT_BYTES_MAX);
        check(
            |manifest, bytes| manifest.program.env = vec![("x".repeat(bytes), String::new())],
            NAME_BYTES_MAX,
        );
        check(
            |manifest, count| {
                manifest.program.env = (0..count).map(|n| (n.to_string(), String::new())).collect()
            },
            ENVIRONMENT_MAX,
        );
    }
}
