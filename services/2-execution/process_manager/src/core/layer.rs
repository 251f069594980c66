//! What is known of a program's copy-on-write folders, and the sandbox of the process that works on them.

use base::{IdentityId, ProcessId};
use minicbor::{Decode, Encode};
use sandbox::{Descriptor, Executable, Guard, GuardSet, Mount, Plan, seccomp::Profile};

use super::{
    Host, PathGrant, ProcessError, Viewer, normalize,
    plan::{hidden_inside, layer_folder},
    watch::is_below,
};
use crate::layer::{BASE, Folder, LAYER, Task};

/// Slots of such a process: its own image, the job, where the report goes, its standard error.
pub const JOB_SLOTS: u32 = 4;
/// Bits of capabilities, over files of its own ids alone: the program may have locked itself out of its folders.
/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID.
const CAPABILITIES: u64 = 0b1_1111;

/// Kept until nothing is left in it: on disk beside the layer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Layer {
    #[n(0)]
    pub pid: ProcessId,
    #[n(1)]
    pub identity: IdentityId,
    #[n(2)]
    pub by: IdentityId,
    #[n(3)]
    pub name: String,
    /// Before the program saw anything: seconds and nanoseconds of the clock that files have.
    #[n(4)]
    pub made_at: (i64, u32),
    /// Folders of the host, by number.
    #[n(5)]
    pub folders: Vec<String>,
}

impl Layer {
    #[must_use]
    pub fn is_seen_by(&self, viewer: Viewer) -> bool {
        match viewer {
            Viewer::All => true,
            Viewer::Identity(id) => self.identity == id || self.by == id,
        }
    }

    /// The folders that a path of the host means: all, one and what lies in it, or those below it.
    pub fn folders(&self, path: &str) -> Result<Vec<Folder>, ProcessError> {
        let all = (0..).zip(&self.folders);
        let folder = |number, shown: &str, under: &str| Folder {
            number,
            shown: shown.to_owned(),
            under: under.to_owned(),
        };
        if path.is_empty() {
            return Ok(all.map(|(number, shown)| folder(number, shown, "")).collect());
        }
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            let text = format!("{path:?} is not an absolute path without `..`");
            return Err(ProcessError::invalid("path", text));
        }
        let path = normalize(path);
        let holding = all.clone().filter(|(_, shown)| is_below(&path, shown));
        if let Some((number, shown)) = holding.max_by_key(|(_, shown)| shown.len()) {
            let under = path.get(shown.len()..).unwrap_or_default().trim_start_matches('/');
            return Ok(vec![folder(number, shown, under)]);
        }
        let below: Vec<Folder> = all
            .filter(|(_, shown)| is_below(shown, &path))
            .map(|(number, shown)| folder(number, shown, ""))
            .collect();
        if below.is_empty() {
            let text = format!(
                "{path} lies in no folder that process {} was shown copy-on-write: {}",
                self.pid,
                self.folders.join(", ")
            );
            return Err(ProcessError::invalid("path", text));
        }
        Ok(below)
    }
}

/// The host paths that a program sees copy-on-write, in the order of their numbers.
pub fn copied(paths: &[PathGrant]) -> impl Iterator<Item = &PathGrant> {
    paths.iter().filter(|grant| grant.copied)
}

/// The sandbox of a job: what the program had of these folders, writable only to commit.
#[must_use]
pub fn job_plan(layer: &Layer, task: Task, host: &Host) -> Plan {
    let mut plan = Plan::new(&format!("layer-{}", layer.pid), Executable::Slot(0), Profile::Program);
    let bind =
        |source: String, target: String, writable| Mount::Bind { source, target, writable, optional: false };
    let mut mounts = vec![bind(layer_folder(host, layer.pid), LAYER.to_owned(), true)];
    let bases: Vec<(String, String)> = (0..)
        .zip(&layer.folders)
        .map(|(number, shown): (u32, _)| (shown.clone(), format!("{BASE}/{number}")))
        .collect();
    if task != Task::Remove {
        let writable = task == Task::Commit;
        mounts.extend(bases.iter().map(|(shown, target)| bind(shown.clone(), target.clone(), writable)));
    }
    plan = plan.with_mounts(mounts);
    if task != Task::Remove {
        let pairs = bases.iter().map(|(shown, target)| (shown.as_str(), target.as_str()));
        plan.masked.extend(hidden_inside(pairs, host));
    }
    plan.arguments = ["bailiwick", "process", "layer"].map(str::to_owned).to_vec();
    plan.capabilities_kept = CAPABILITIES;
    // Without a user namespace these capabilities would be the host's.
    plan.required = GuardSet::of(&[Guard::Userns, Guard::Mountns, Guard::NoNewPrivs, Guard::Seccomp]);
    plan.descriptors = [(1, 3), (2, 1), (3, 2)].map(|(slot, target)| Descriptor { slot, target }).to_vec();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Layer {
        Layer {
            pid: ProcessId(7),
            identity: IdentityId([1; 32]),
            by: IdentityId([2; 32]),
            name: "sh".to_owned(),
            made_at: (1, 2),
            folders: vec!["/a".to_owned(), "/a/b".to_owned(), "/c".to_owned()],
        }
    }

    #[test]
    fn a_path_means_the_deepest_folder_that_holds_it_or_those_below() {
        let found = |path: &str| {
            let folders = layer().folders(path).unwrap();
            folders.into_iter().map(|folder| (folder.number, folder.under)).collect::<Vec<_>>()
        };
        let whole = |numbers: &[u32]| numbers.iter().map(|n| (*n, String::new())).collect::<Vec<_>>();
        assert_eq!(found(""), whole(&[0, 1, 2]));
        assert_eq!(found("/"), whole(&[0, 1, 2]));
        assert_eq!(found("/a"), whole(&[0]));
        assert_eq!(found("/a/b/"), whole(&[1]));
        assert_eq!(found("/a/b/x/y"), [(1, "x/y".to_owned())]);
        assert_eq!(found("/a/bc"), [(0, "bc".to_owned())]);
        for wrong in ["/d", "/ab", "a", "/a/../d"] {
            assert!(layer().folders(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_sees_the_layer_and_its_folders_and_writes_to_them_only_to_commit() {
        let host = Host {
            images: "/srv/images".to_owned(),
            hidden: vec!["/a/node".to_owned()],
            monitor: Vec::new(),
        };
        for task in [Task::Diff, Task::Commit, Task::Remove] {
            let plan = job_plan(&layer(), task, &host);
            assert_eq!(plan.validate(JOB_SLOTS as usize), Ok(()));
            let seen: Vec<(&str, &str, bool)> = plan
                .mounts
                .iter()
                .map(|mount| match mount {
                    Mount::Bind { source, target, writable, .. } => {
                        (source.as_str(), target.as_str(), *writable)
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(seen[0], ("/srv/images/layers/7", LAYER, true));
            match task {
                Task::Remove => assert_eq!(seen.len(), 1),
                _ => {
                    let writes = task == Task::Commit;
                    assert_eq!(
                        seen[1..],
                        [("/a", "/base/0", writes), ("/a/b", "/base/1", writes), ("/c", "/base/2", writes)]
                    );
                    assert!(plan.masked.contains(&"/base/0/node".to_owned()), "{:?}", plan.masked);
                }
            }
        }
    }
}
