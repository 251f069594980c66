//! The manifest that comes out, and its TOML. The names are those of the supervisor's schema, which reads it.

use std::fmt::Write as _;

use crate::limits::SERVICE_NAME_BYTES_MAX;

/// Names that the supervisor keeps for itself or ships.
const TAKEN: [&str; 18] = [
    "init",
    "supervisor",
    "keeper",
    "admin",
    "operator",
    "axiom",
    "policy",
    "keys",
    "identity",
    "process_manager",
    "capability_service",
    "block_storage",
    "filesystem",
    "driver_manager",
    "network",
    "terminal",
    "update_manager",
    "mesh",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub name: String,
    pub description: String,
    /// The unit or file that it was made from, and whatever else its head says.
    pub head: Vec<String>,
    pub program: Program,
    pub restart: Restart,
    pub health: Health,
    pub resources: Resources,
    pub sandbox: Sandbox,
    pub dependencies: Vec<Dependency>,
    pub sockets: Vec<Socket>,
    pub trigger_limit: TriggerLimit,
    pub timer: Option<Timer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub image: String,
    pub entrypoint: Vec<String>,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    pub fs: Vec<String>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub privileges: Vec<String>,
    pub umask: Option<String>,
    pub runs: Option<&'static str>,
    pub pid_file: Option<String>,
    pub before: Vec<Step>,
    pub after: Vec<Step>,
    pub stop: Vec<String>,
    pub stop_signal: Option<&'static str>,
    pub reload: Vec<String>,
    pub reload_signal: Option<&'static str>,
    pub env_files: Vec<EnvFile>,
    pub folders: Vec<Folder>,
    pub secrets: Vec<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub command: Vec<String>,
    pub may_fail: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    pub path: String,
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    pub path: String,
    /// Octal.
    pub mode: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub name: String,
    pub path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restart {
    pub mode: Option<&'static str>,
    pub max_restarts: Option<u64>,
    pub window_ms: Option<u64>,
    pub delay_ms: Option<u64>,
    pub on_exhausted: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub kind: Option<&'static str>,
    pub startup_timeout_ms: Option<u64>,
    pub stop_timeout_ms: Option<u64>,
    pub watchdog_ms: Option<u64>,
    /// Of an `exec` check.
    pub command: Vec<String>,
    pub check_interval_ms: Option<u64>,
    pub check_timeout_ms: Option<u64>,
    pub failure_threshold: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory_mb: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub priority: Option<&'static str>,
    pub io_weight: Option<u64>,
    pub io: Vec<IoMaximum>,
}

/// What may be asked of a disk each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoMaximum {
    pub place: String,
    pub read_bytes: Option<u64>,
    pub write_bytes: Option<u64>,
    pub read_operations: Option<u64>,
    pub write_operations: Option<u64>,
}

impl IoMaximum {
    fn row(&self) -> String {
        let numbers = [
            ("read_bytes", self.read_bytes),
            ("write_bytes", self.write_bytes),
            ("read_operations", self.read_operations),
            ("write_operations", self.write_operations),
        ];
        let numbers = numbers.iter().filter_map(|(key, number)| Some(format!(", {key} = {}", (*number)?)));
        format!("{{ place = {}{} }}", text(&self.place), numbers.collect::<String>())
    }
}

impl Resources {
    /// Whether a limit more of a disk could be taken in.
    pub(crate) fn limit_disk(&mut self, place: String, set: impl FnOnce(&mut IoMaximum)) -> bool {
        let known = self.io.iter().position(|one| one.place == place);
        if let Some(one) = known.and_then(|at| self.io.get_mut(at)) {
            set(one);
            return true;
        }
        if self.io.len() >= IO_LIMITS_MAX {
            return false;
        }
        set(self.io.push_mut(IoMaximum { place, ..IoMaximum::default() }));
        true
    }
}

/// The supervisor's limit.
const IO_LIMITS_MAX: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// The host's network, or its own.
    pub host_network: bool,
    pub tmp_mb: Option<u64>,
    pub processes_max: Option<u64>,
    pub open_files_max: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub name: String,
    pub required: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    pub name: String,
    pub listen: String,
    pub on_demand: bool,
    pub backlog: Option<u64>,
    pub mode: Option<String>,
    pub user: Option<String>,
    pub reuse_port: bool,
    /// The program's port that it is led to; it is not handed over.
    pub publish: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerLimit {
    pub interval_ms: Option<u64>,
    pub burst: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    pub calendar: Vec<String>,
    pub after_boot_ms: Option<u64>,
    pub every_ms: Option<u64>,
    pub random_delay_ms: Option<u64>,
    pub catch_up: bool,
}

/// A name that the supervisor takes: at most 32 bytes of `a-z 0-9 _ -`, a letter first. Long ones end with a number that
/// is made of the whole.
pub(crate) fn service_name(of: &str) -> String {
    let mut name: String = of
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' })
        .collect();
    name = name.trim_end_matches('-').to_owned();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || TAKEN.contains(&name.as_str()) {
        name = format!("unit-{}", name.trim_start_matches('-'));
    }
    if name.len() > SERVICE_NAME_BYTES_MAX {
        // FNV-1a, folded: two long names that begin alike stay apart.
        let hash =
            of.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        name = format!("{}-{:04x}", name.get(..27).unwrap_or(&name), (hash >> 16) ^ (hash & 0xffff));
    }
    name
}

/// A TOML string, on one line: keys and inline tables may not have longer ones.
fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list<S: AsRef<str>>(values: &[S]) -> String {
    let one: Vec<String> = values.iter().map(|value| text(value.as_ref())).collect();
    let line = format!("[{}]", one.join(", "));
    if line.len() <= 100 || one.len() < 2 { line } else { format!("[\n    {},\n]", one.join(",\n    ")) }
}

fn tables(rows: Vec<String>) -> String {
    if rows.len() == 1 {
        format!("[{}]", rows.join(""))
    } else {
        format!("[\n    {},\n]", rows.join(",\n    "))
    }
}

/// One table; it is left out if nothing is in it.
struct Table {
    head: &'static str,
    lines: String,
}

impl Table {
    fn new(head: &'static str) -> Self {
        Self { head, lines: String::new() }
    }

    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.lines, "{key} = {value}");
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.raw(key, text(value));
        }
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.raw(key, value);
        }
    }

    fn list(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            self.raw(key, list(values));
        }
    }

    fn tables(&mut self, key: &str, rows: Vec<String>) {
        if !rows.is_empty() {
            self.raw(key, tables(rows));
        }
    }

    fn end(self, out: &mut String) {
        if !self.lines.is_empty() {
            let _ = write!(out, "\n{}\n{}", self.head, self.lines);
        }
    }
}

impl Manifest {
    /// The text of its file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for line in self.head.iter().flat_map(|line| line.lines()) {
            // A control character would end a comment or is refused in one.
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(out, "# {}", line.trim_end());
        }
        out.push_str("version = 1\n");
        let mut service = Table::new("[service]");
        service.text("name", Some(&self.name));
        service.text("version", Some("1.0.0"));
        service.text("service_type", Some("User"));
        service.text("description", (!self.description.is_empty()).then_some(self.description.as_str()));
        service.end(&mut out);
        self.program.write(&mut out);
        self.tail(&mut out);
        out
    }

    fn tail(&self, out: &mut String) {
        let mut table = Table::new("[restart]");
        table.text("mode", self.restart.mode);
        table.number("max_restarts", self.restart.max_restarts);
        table.number("window_ms", self.restart.window_ms);
        table.number("delay_ms", self.restart.delay_ms);
        if let Some(delay) = self.restart.delay_ms {
            table.raw("backoff", "1.0");
            table.number("max_delay_ms", Some(delay));
        }
        table.text("on_exhausted", self.restart.on_exhausted);
        table.end(out);
        let health = &self.health;
        let mut table = Table::new("[health]");
        table.text("kind", health.kind);
        table.list("command", &health.command);
        table.number("startup_timeout_ms", health.startup_timeout_ms);
        table.number("stop_timeout_ms", health.stop_timeout_ms);
        table.number("watchdog_ms", health.watchdog_ms);
        table.number("check_interval_ms", health.check_interval_ms);
        table.number("check_timeout_ms", health.check_timeout_ms);
        table.number("failure_threshold", health.failure_threshold);
        table.end(out);
        let mut table = Table::new("[resources]");
        table.number("memory_mb", self.resources.memory_mb);
        table.number("cpu_shares", self.resources.cpu_shares);
        table.text("priority", self.resources.priority);
        table.number("io_weight", self.resources.io_weight);
        // Where a kernel cannot hold it, those whose files these are start a service all the same.
        if self.resources.io_weight.is_some() || !self.resources.io.is_empty() {
            table.raw("io_optional", true);
        }
        table.tables("io", self.resources.io.iter().map(IoMaximum::row).collect());
        table.end(out);
        let mut table = Table::new("[sandbox]");
        table.text("network", self.sandbox.host_network.then_some("host"));
        table.number("tmp_mb", self.sandbox.tmp_mb);
        table.number("processes_max", self.sandbox.processes_max);
        table.number("open_files_max", self.sandbox.open_files_max);
        table.end(out);
        for dependency in &self.dependencies {
            let mut table = Table::new("[[dependencies]]");
            table.text("name", Some(&dependency.name));
            table.raw("required", dependency.required);
            table.end(out);
        }
        for socket in &self.sockets {
            let mut table = Table::new("[[sockets]]");
            table.text("name", Some(&socket.name));
            table.text("listen", Some(&socket.listen));
            table.number("publish", socket.publish.map(u64::from));
            table.raw("on_demand", socket.on_demand);
            table.number("backlog", socket.backlog);
            table.text("mode", socket.mode.as_deref());
            table.text("user", socket.user.as_deref());
            if socket.reuse_port {
                table.raw("reuse_port", true);
            }
            table.end(out);
        }
        let mut table = Table::new("[trigger_limit]");
        // The supervisor takes it only beside a socket that starts the service; one may have been refused.
        if self.sockets.iter().any(|socket| socket.on_demand) {
            table.number("interval_ms", self.trigger_limit.interval_ms);
            table.number("burst", self.trigger_limit.burst);
        }
        table.end(out);
        if let Some(timer) = &self.timer {
            let mut table = Table::new("[timer]");
            table.list("calendar", &timer.calendar);
            table.number("after_boot_ms", timer.after_boot_ms);
            table.number("every_ms", timer.every_ms);
            table.number("random_delay_ms", timer.random_delay_ms);
            if timer.catch_up {
                table.raw("catch_up", true);
            }
            table.end(out);
        }
    }
}

impl Program {
    fn write(&self, out: &mut String) {
        let mut table = Table::new("[program]");
        table.text("image", Some(&self.image));
        table.list("entrypoint", &self.entrypoint);
        table.list("args", &self.args);
        table.text("runs", self.runs);
        table.text("pid_file", self.pid_file.as_deref());
        table.text("user", self.user.as_deref());
        table.list("groups", &self.groups);
        table.list("privileges", &self.privileges);
        table.text("umask", self.umask.as_deref());
        table.text("cwd", self.cwd.as_deref());
        table.list("fs", &self.fs);
        let folder = |one: &Folder| format!("{{ path = {}, mode = {} }}", text(&one.path), text(&one.mode));
        table.tables("folders", self.folders.iter().map(folder).collect());
        let secret = |one: &Secret| format!("{{ name = {}, path = {} }}", text(&one.name), text(&one.path));
        table.tables("secrets", self.secrets.iter().map(secret).collect());
        let file = |one: &EnvFile| format!("{{ path = {}, optional = {} }}", text(&one.path), one.optional);
        table.tables("env_files", self.env_files.iter().map(file).collect());
        let step = |one: &Step| {
            let words: Vec<String> = one.command.iter().map(|word| text(word)).collect();
            format!("{{ command = [{}], may_fail = {} }}", words.join(", "), one.may_fail)
        };
        table.tables("before", self.before.iter().map(step).collect());
        table.tables("after", self.after.iter().map(step).collect());
        table.list("reload", &self.reload);
        table.text("reload_signal", self.reload_signal);
        table.list("stop", &self.stop);
        table.text("stop_signal", self.stop_signal);
        table.end(out);
        let mut variables = Table::new("[program.env]");
        for (name, value) in &self.env {
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let plain = !name.is_empty() && name.chars().all(bare);
            variables.raw(&if plain { name.clone() } else { text(name) }, text(value));
        }
        variables.end(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_legal_and_stay_apart() {
        let check = |of: &str, expected: &str| assert_eq!(service_name(of), expected);
        check("nginx", "nginx");
        check("postgresql@15-main", "postgresql-15-main");
        check("Foo.bar", "foo-bar");
        check("7zip", "unit-7zip");
        check("policy", "unit-policy");
        check(&"a".repeat(32), &"a".repeat(32));
        let (one, other) = (service_name(&"a".repeat(33)), service_name(&"a".repeat(34)));
        assert_eq!((one.len(), other.len(), one != other), (32, 32, true));
    }

    #[test]
    fn any_text_is_written_so_that_toml_reads_it_again() {
        let hard = "a\"b\\c\n'''\"\"\"\u{1}ä ";
        let mut manifest = Manifest { name: "x".into(), head: vec!["a\rb\nc".into()], ..Manifest::default() };
        manifest.program.image = "/bin/x".into();
        manifest.program.args = vec![hard.into(), String::new(), "y".repeat(200)];
        manifest.program.env = vec![(hard.into(), hard.into())];
        manifest.program.before = vec![
            Step { command: vec![hard.into()], may_fail: true },
            Step { command: vec!["b".into()], may_fail: false },
        ];
        manifest.timer = Some(Timer { calendar: vec![hard.into()], ..Timer::default() });
        let read: toml::Table = toml::from_str(&manifest.to_toml()).unwrap();
        let program = read.get("program").unwrap();
        assert_eq!(program.get("args").unwrap().as_array().unwrap().first().unwrap().as_str(), Some(hard));
        assert_eq!(program.get("env").unwrap().get(hard).unwrap().as_str(), Some(hard));
        let before = program.get("before").unwrap().as_array().unwrap();
        assert_eq!(before.first().unwrap().get("may_fail").unwrap().as_bool(), Some(true));
    }
}
