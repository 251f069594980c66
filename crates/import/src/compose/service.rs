//! The keys of one service.

use super::Work;
use crate::{
    keys::{Key, Treat},
    limits::DURATION_MS_MAX,
    manifest::{Dependency, EnvFile},
    parts::{self, Image},
    ports,
    report::Fate,
    service::plain_path,
    unit::{value, words},
    yaml::{Node, Value},
};

const PROCESSES_MAX: u64 = 32_768;
const CPU_SHARES_MAX: u64 = 262_144;
const RESTARTS_MAX: u64 = 1000;

/// A text with `$$` read; what compose would put in is not known here, but for a default.
fn literal(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let default = braced.and_then(|(inside, after)| {
            let (name, default) = inside.split_once(":-").or_else(|| inside.split_once('-'))?;
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            is_name.then_some((default, after))
        });
        match default {
            Some((default, after)) if !default.contains('$') => {
                out.push_str(default);
                rest = after;
            }
            _ => {
                return Err(format!(
                    "{text:?} has a variable of compose, whose value is not known here; write it in"
                ));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

pub(super) fn text(node: &Node) -> Result<String, String> {
    literal(node.text().ok_or("it is no text")?)
}

/// A list of texts; a single one is a list of one.
fn texts(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Text(one) => Ok(vec![literal(one)?]),
        Value::List(items) => items.iter().map(text).collect(),
        Value::Null => Ok(Vec::new()),
        Value::Map(_) => Err("it is no list of texts".to_owned()),
    }
}

/// Words of a command: a list as it is, a text as a shell splits it.
fn command(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Text(one) => words::texts(&literal(one)?),
        _ => texts(node),
    }
}

fn span_ms(node: &Node) -> Result<u64, String> {
    let us = value::span_us(&text(node)?)?.unwrap_or(u64::MAX);
    Ok(us.div_ceil(1000).min(DURATION_MS_MAX))
}

impl Work<'_> {
    pub(super) fn key(&mut self, key: &str, node: &Node, row: &Key) {
        match row.treat {
            Treat::Ignored => return self.say(key, node, Fate::Ignored, row.text),
            Treat::Refused => return self.say(key, node, Fate::Refused, row.text),
            Treat::Always => {
                let fate = match node.text().and_then(value::boolean) {
                    Some(false) => Fate::Approximated,
                    _ => Fate::Mapped,
                };
                return self.say(key, node, fate, row.text);
            }
            Treat::Code(_) if node.value == Value::Null => {
                return self.say(key, node, Fate::Ignored, "it has no value");
            }
            Treat::Code(_) => {}
        }
        match key {
            // Together, when all is read.
            "image" | "command" | "entrypoint" | "ports" => {}
            "environment" => self.environment(key, node),
            "env_file" => self.env_file(key, node),
            "user" => {
                let done = text(node).and_then(|user| parts::account(&user));
                match done {
                    Ok(user) => {
                        self.manifest.program.user = Some(user);
                        self.say(
                            key,
                            node,
                            Fate::Approximated,
                            "[program] user: a user of the host, not of an image",
                        );
                    }
                    Err(why) => self.say(key, node, Fate::Refused, why),
                }
            }
            "group_add" => {
                let has_user = self.manifest.program.user.is_some();
                let groups = texts(node).and_then(|groups| match has_user {
                    true => groups.iter().map(|group| parts::account(group)).collect::<Result<Vec<_>, _>>(),
                    false => Err("groups need a user of the host: name one".to_owned()),
                });
                let done = groups.map(|groups| self.manifest.program.groups = groups);
                self.outcome(key, node, "[program] groups", done);
            }
            "volumes" => self.volumes(key, node),
            "tmpfs" => {
                let done =
                    texts(node).and_then(|paths| match paths.iter().all(|path| parts::is_temporary(path)) {
                        true => Ok(()),
                        false => Err("only /tmp and /run are temporary".to_owned()),
                    });
                self.outcome(key, node, "it is its own, in memory", done);
            }
            "network_mode" => match node.text() {
                Some("host") => {
                    self.manifest.sandbox.host_network = true;
                    self.say(key, node, Fate::Mapped, "[sandbox] network = \"host\"");
                }
                Some("none") => {
                    self.say(key, node, Fate::Mapped, "[sandbox] network is its own, and reaches nothing")
                }
                Some("bridge") => self.say(key, node, Fate::Approximated, ports::OWN_NETWORK),
                _ => self.say(key, node, Fate::Refused, ports::NO_OTHERS),
            },
            "depends_on" => self.depends_on(key, node),
            "restart" => self.restart(key, node),
            "cap_add" => {
                let names = texts(node).unwrap_or_default();
                let done = names.iter().try_for_each(|name| parts::privilege(&mut self.manifest, name));
                self.outcome(key, node, "[program] privileges", done);
            }
            "cap_drop" => self.say(key, node, Fate::Mapped, "none is kept but those that are added"),
            "privileged" => match node.text().and_then(value::boolean) {
                Some(false) => self.say(key, node, Fate::Ignored, "nothing stands outside its sandbox"),
                _ => self.say(
                    key,
                    node,
                    Fate::Refused,
                    "nothing stands outside its sandbox; name what it needs by cap_add",
                ),
            },
            "security_opt" => {
                let known = |one: &String| one.starts_with("no-new-privileges");
                let done = texts(node).and_then(|all| match all.iter().all(known) {
                    true => Ok(()),
                    false => Err("the sandbox has its own filter and labels; only no-new-privileges is done, in any case".to_owned()),
                });
                self.outcome(key, node, "nothing that is executed gains a right", done);
            }
            "healthcheck" => self.healthcheck(key, node),
            "blkio_config" => self.disks(key, node),
            _ => self.simple(key, node),
        }
    }

    /// Keys of one value.
    fn simple(&mut self, key: &str, node: &Node) {
        let manifest = &mut self.manifest;
        let given = text(node);
        let number = |max: u64| given.clone().and_then(|given| parts::number(&given, max));
        let (how, done) = match key {
            "stop_signal" => {
                let signal = given.and_then(|given| {
                    value::signal(&given).ok_or_else(|| "a manifest cannot name this signal".to_owned())
                });
                ("[program] stop_signal", signal.map(|signal| manifest.program.stop_signal = Some(signal)))
            }
            "stop_grace_period" => (
                "[health] stop_timeout_ms",
                span_ms(node).map(|ms| manifest.health.stop_timeout_ms = Some(ms)),
            ),
            "working_dir" => {
                let path = given.and_then(|path| match path.starts_with('/') && !path.contains("..") {
                    true => Ok(plain_path(&path)),
                    false => Err("it is no absolute path".to_owned()),
                });
                ("[program] cwd", path.map(|path| manifest.program.cwd = Some(path)))
            }
            "mem_limit" => {
                let size = given.and_then(|given| parts::megabytes(&given));
                ("[resources] memory_mb", size.map(|size| manifest.resources.memory_mb = Some(size)))
            }
            "pids_limit" => (
                "[sandbox] processes_max",
                number(PROCESSES_MAX).map(|count| manifest.sandbox.processes_max = Some(count)),
            ),
            "cpu_shares" => {
                let shares = number(CPU_SHARES_MAX).map(|shares| (shares.saturating_mul(100) / 1024).max(2));
                ("[resources] cpu_shares", shares.map(|shares| manifest.resources.cpu_shares = Some(shares)))
            }
            _ => ("", Err("the import passed it over, which is a fault of the import".to_owned())),
        };
        self.outcome(key, node, how, done);
    }

    /// `image`, `entrypoint` and `command` make one program.
    pub(super) fn program(&mut self, service: &Node) {
        let mut in_container = false;
        if let Some(node) = service.get("image") {
            let reference = node.text().unwrap_or_default().to_owned();
            match parts::image(&reference) {
                Ok(Image::Program(path)) => {
                    self.manifest.program.image = path;
                    self.say("image", node, Fate::Mapped, "[program] image");
                }
                Ok(Image::Container(name)) => {
                    in_container = true;
                    parts::needs_image(&mut self.manifest, &name);
                    self.say("image", node, Fate::Mapped, parts::OF_STORE);
                }
                Err(why) => self.say("image", node, Fate::Refused, why),
            }
        }
        let mut args = Vec::new();
        if let Some(node) = service.get("entrypoint") {
            let words = command(node);
            if in_container {
                let done = words.map(|words| self.manifest.program.entrypoint = words);
                self.outcome("entrypoint", node, "[program] entrypoint", done);
            } else {
                let done = words.and_then(|words| {
                    let (first, rest) = words.split_first().ok_or("it is empty")?;
                    let path = parts::host_program(first)
                        .ok_or("it is no absolute path of a program of the host")?;
                    self.manifest.program.image = path;
                    args = rest.to_vec();
                    Ok(())
                });
                self.outcome("entrypoint", node, "[program] image and args", done);
            }
        }
        if let Some(node) = service.get("command") {
            let done = command(node).map(|words| args.extend(words));
            self.outcome("command", node, "[program] args", done);
        }
        self.manifest.program.args = args;
    }

    fn environment(&mut self, key: &str, node: &Node) {
        let mut pairs = Vec::new();
        let mut refused = Vec::new();
        let mut take = |name: &str, value: Result<String, String>| match value {
            Ok(value) if !name.is_empty() && !name.contains(['=', '\0']) => {
                pairs.push((name.to_owned(), value))
            }
            Ok(_) => refused.push(format!("{name:?} is no name of a variable")),
            Err(why) => refused.push(why),
        };
        let nothing = |name: &str| Err(format!("{name} has no value, and nothing is inherited; write it"));
        match &node.value {
            Value::Map(entries) => {
                for (name, value) in entries {
                    take(name, if value.value == Value::Null { nothing(name) } else { text(value) });
                }
            }
            Value::List(items) => {
                for item in items {
                    let item = item.text().unwrap_or_default();
                    match item.split_once('=') {
                        Some((name, value)) => take(name, literal(value)),
                        None => take(item, nothing(item)),
                    }
                }
            }
            _ => refused.push("it is neither a list nor a mapping".to_owned()),
        }
        for (name, value) in pairs {
            self.manifest.program.env.retain(|(known, _)| *known != name);
            self.manifest.program.env.push((name, value));
        }
        self.say(key, node, Fate::Mapped, "[program.env]");
        for why in refused {
            self.say(key, node, Fate::Refused, why);
        }
    }

    fn env_file(&mut self, key: &str, node: &Node) {
        let items = match &node.value {
            Value::List(items) => items.clone(),
            _ => vec![node.clone()],
        };
        for item in items {
            let path = item.get("path").unwrap_or(&item);
            let optional = item.get("required").and_then(Node::text).and_then(value::boolean) == Some(false);
            let path = text(path).and_then(|path| match path.starts_with('/') && !path.contains("..") {
                true => Ok(plain_path(&path)),
                false => Err(format!("{path:?} is no absolute path; write it whole")),
            });
            let done = path.map(|path| self.manifest.program.env_files.push(EnvFile { path, optional }));
            self.outcome(key, node, "[program] env_files", done);
        }
    }

    fn volumes(&mut self, key: &str, node: &Node) {
        let Value::List(items) = &node.value else {
            return self.say(key, node, Fate::Refused, "it is no list");
        };
        for item in items {
            let field = |name: &str| item.get(name).and_then(Node::text).unwrap_or_default().to_owned();
            let parted = match &item.value {
                Value::Text(one) => literal(one).map(|one| parts::split_volume(&one)),
                Value::Map(_) if field("type") == "tmpfs" => match parts::is_temporary(&field("target")) {
                    true => {
                        self.say(key, item, Fate::Mapped, "it is its own, in memory");
                        continue;
                    }
                    false => Err("only /tmp and /run are temporary".to_owned()),
                },
                Value::Map(_) => {
                    let read_only = value::boolean(&field("read_only")) == Some(true);
                    let source = match field("source") {
                        source if source.is_empty() => "anonymous".to_owned(),
                        source => source,
                    };
                    Ok((source, field("target"), read_only))
                }
                _ => Err("it is no volume".to_owned()),
            };
            let volume =
                parted.and_then(|(source, target, read_only)| parts::volume(&source, &target, read_only));
            match volume {
                Ok(volume) => {
                    let fate = match volume {
                        parts::Volume::Folder(_) => Fate::Approximated,
                        parts::Volume::Grant(..) => Fate::Mapped,
                    };
                    let how = parts::add_volume(&mut self.manifest, volume);
                    self.say(key, item, fate, how);
                }
                Err(why) => self.say(key, item, Fate::Refused, why),
            }
        }
    }

    fn depends_on(&mut self, key: &str, node: &Node) {
        let others: Vec<(String, bool)> = match &node.value {
            Value::Map(entries) => {
                let required = |node: &Node| {
                    node.get("required").and_then(Node::text).and_then(value::boolean) != Some(false)
                };
                entries.iter().map(|(name, node)| (name.clone(), required(node))).collect()
            }
            _ => texts(node).unwrap_or_default().into_iter().map(|name| (name, true)).collect(),
        };
        for (other, required) in others {
            let name = self.names.iter().find(|(known, _)| *known == other).map(|(_, name)| name.clone());
            let done = name.ok_or_else(|| format!("{other} is no service of this file")).map(|name| {
                if name != self.manifest.name
                    && !self.manifest.dependencies.iter().any(|known| known.name == name)
                {
                    self.manifest.dependencies.push(Dependency { name, required });
                }
            });
            self.outcome(key, node, "[[dependencies]]", done);
        }
    }

    fn restart(&mut self, key: &str, node: &Node) {
        let word = node.text().unwrap_or("no");
        let (word, count) = word.split_once(':').unwrap_or((word, ""));
        let mode = match word {
            "no" | "false" => "never",
            "always" | "unless-stopped" => "always",
            "on-failure" => "on_failure",
            _ => return self.say(key, node, Fate::Refused, "it is no word for it; it is not started again"),
        };
        self.manifest.restart.mode = Some(mode);
        if !count.is_empty() {
            let done = parts::number(count, RESTARTS_MAX)
                .map(|count| self.manifest.restart.max_restarts = Some(count));
            return self.outcome(key, node, "[restart] mode and max_restarts, within its window", done);
        }
        self.say(key, node, Fate::Mapped, "[restart] mode");
    }

    fn healthcheck(&mut self, key: &str, node: &Node) {
        if node.get("disable").and_then(Node::text).and_then(value::boolean) == Some(true) {
            return self.say(key, node, Fate::Mapped, "there is no check");
        }
        let test = node.get("test").map(|test| (test, texts(test)));
        let command = match test {
            Some((test, Ok(words))) => match (words.first().map(String::as_str), &test.value) {
                (Some("NONE"), _) => return self.say(key, node, Fate::Mapped, "there is no check"),
                (Some("CMD"), _) => words.get(1..).unwrap_or_default().to_vec(),
                (Some("CMD-SHELL"), _) => {
                    vec!["/bin/sh".to_owned(), "-c".to_owned(), words.get(1..).unwrap_or_default().join(" ")]
                }
                (Some(line), Value::Text(_)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        if !command.first().is_some_and(|program| program.starts_with('/')) {
            return self.say(
                key,
                node,
                Fate::Refused,
                "its test is no command with an absolute path, and no CMD-SHELL",
            );
        }
        self.manifest.health.kind = Some("exec");
        self.manifest.health.command = command;
        let mut fate = Fate::Mapped;
        for (name, value) in node.entries() {
            let health = &mut self.manifest.health;
            let done = match name.as_str() {
                "test" | "disable" => Ok(()),
                "interval" => span_ms(value).map(|ms| health.check_interval_ms = Some(ms.max(10))),
                "timeout" => span_ms(value).map(|ms| health.check_timeout_ms = Some(ms.max(1))),
                "retries" => text(value)
                    .and_then(|count| parts::number(&count, 1000))
                    .map(|count| health.failure_threshold = Some(count)),
                "start_period" => {
                    fate = Fate::Approximated;
                    span_ms(value).map(|ms| health.startup_timeout_ms = Some(ms.max(1)))
                }
                _ => Err(format!("a check has no {name} here")),
            };
            if let Err(why) = done {
                self.say(key, value, Fate::Refused, why);
            }
        }
        self.say(key, node, fate, "[health] kind = \"exec\"");
    }
}
