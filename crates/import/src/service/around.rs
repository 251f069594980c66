//! What a unit takes for granted of the host, and the manifest must name.

use super::Work;
use crate::report::Fate;

/// Read-only, where the host has them: a unit sees the whole host, and configuration and content lie here.
const SEEN: [&str; 4] = ["/etc", "/opt", "/srv", "/var"];
/// Where programs keep what is theirs, in a folder of their name.
const NAMED: [&str; 5] = ["/var/lib", "/var/log", "/var/cache", "/var/spool", "/run"];
/// Where the host's names are resolved; `/etc/resolv.conf` may point there.
const RESOLVED: &str = "/run/systemd/resolve";
/// Size of the private `/tmp`, mebibytes. It is memory, and is taken as it is used.
const TMP_MB: u64 = 512;

impl Work<'_> {
    pub(super) fn around(&mut self) {
        self.manifest.sandbox.tmp_mb = Some(TMP_MB);
        for path in SEEN {
            if self.host.exists(path) {
                self.grant(path, false);
            }
        }
        if self.manifest.sandbox.host_network && self.host.exists(RESOLVED) {
            self.grant(RESOLVED, false);
        }
        let strict = self.unit.last("Service", "ProtectSystem").is_some_and(|one| one.value == "strict");
        let mut written = Vec::new();
        if !strict {
            for name in self.names() {
                for root in NAMED {
                    let path = format!("{root}/{name}");
                    let own = self.manifest.program.folders.iter().any(|folder| folder.path == path);
                    if !own && self.host.exists(&path) {
                        self.grant(&path, true);
                        written.push(path);
                    }
                }
            }
            let home = self.user().and_then(|user| self.host.home(&user));
            if let Some(home) = home.filter(|home| home.starts_with("/var/") && self.host.exists(home)) {
                self.grant(&home, true);
                written.push(home);
            }
            written.dedup();
        }
        // A folder comes before what lies in it.
        self.manifest.program.fs.sort_unstable();
        let mut how = "the unit sees the whole host; the service sees /usr, the grants of `fs` (/etc and /var read-only), and a /run, /tmp, /dev and /proc of its own; /sys, homes and the system log's socket are not there".to_owned();
        if !written.is_empty() {
            how = format!(
                "{how}; it may write {}, which bear its name or are its user's home",
                written.join(" ")
            );
        }
        self.whole(Fate::Approximated, how);
    }

    fn user(&self) -> Option<String> {
        self.unit.last("Service", "User").map(|one| one.value)
    }

    /// Names that the program's own folders may have: the unit's, the user's, the executable's.
    fn names(&self) -> Vec<String> {
        let program = &self.manifest.program;
        let user = self.user();
        let image = program.image.rsplit('/').next().map(str::to_owned);
        let mut names: Vec<String> = Vec::new();
        for name in [Some(self.unit.name.prefix.clone()), user, image].into_iter().flatten() {
            let legal =
                !name.is_empty() && name != "root" && !name.contains(['/', '%']) && !name.starts_with('.');
            if legal && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}
