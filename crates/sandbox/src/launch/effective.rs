//! What of a plan this house can give: decided before the fork, so that it can be reported.

use crate::cgroup::Group;
use crate::features::Features;
use crate::guard::{Enforced, EnforcedBy, Guard, LimitKind, Missing};
use crate::landlock;
use crate::plan::{Identity, Mount, Namespaces, PRIORITY_NORMAL, PathRule, Plan, Resource, Rlimit, Seccomp};

/// Guards that the first stage gives and a second stage inside of it cannot repeat.
pub const OF_THE_HOUSE: &[Guard] = &[
    Guard::Userns,
    Guard::Mountns,
    Guard::Pidns,
    Guard::Netns,
    Guard::Ipcns,
    Guard::Utsns,
    Guard::Cgroupns,
    Guard::Cgroup,
    Guard::Uid,
];

/// The part of a plan that will be carried out.
#[derive(Clone, Debug)]
pub struct Effective {
    pub namespaces: Namespaces,
    /// Ids as the host sees them.
    pub host_uid: u32,
    pub host_gid: u32,
    /// Ids that the child takes; `None`: it keeps what it has.
    pub(crate) take: Option<(u32, u32)>,
    pub(crate) inside: Identity,
    /// Sorted, each once; empty without privileges.
    pub(crate) groups: Vec<u32>,
    /// Ids can be chosen and supplementary groups dropped.
    pub(crate) privileged: bool,
    pub(crate) landlock_abi: u32,
    pub(crate) landlock_rules: Vec<PathRule>,
    pub(crate) seccomp: Option<Seccomp>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) nice: i32,
    pub(crate) scheduler: Option<i32>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) no_new_privs: bool,
    pub(crate) caps: bool,
    pub(crate) cgroup: bool,
    pub missing: Vec<Missing>,
    pub enforced: Vec<Enforced>,
}

impl Effective {
    pub(crate) fn clone_flags(&self) -> u64 {
        let n = self.namespaces;
        // The cgroup namespace is unshared by the child, once it stands in its group: that group is its root then.
        [
            (n.user, libc::CLONE_NEWUSER),
            (n.pid, libc::CLONE_NEWPID),
            (n.mount, libc::CLONE_NEWNS),
            (n.net, libc::CLONE_NEWNET),
            (n.ipc, libc::CLONE_NEWIPC),
            (n.uts, libc::CLONE_NEWUTS),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |flags, (_, flag)| flags | flag as u64)
    }

    /// Only a right in the initial user namespace raises a priority; the child has left that one.
    pub(crate) fn raised_by_parent(&self) -> bool {
        self.namespaces.user && self.nice < 0
    }

    /// Whose the process's own files are, in ids of the namespace in which they are made.
    pub(crate) fn owner(&self) -> (u32, u32) {
        self.take.unwrap_or((self.host_uid, self.host_gid))
    }

    pub(crate) fn describe(&self) -> String {
        format!("namespaces {:?}", self.namespaces)
    }

    /// Files of `/proc/PID` and their content, in the order in which the kernel wants them.
    pub(crate) fn id_maps(&self) -> Vec<(&'static str, String)> {
        let mut maps = Vec::with_capacity(3);
        if !self.privileged {
            maps.push(("setgroups", "deny".to_owned()));
        }
        let mut groups = format!("{} {} 1", self.inside.gid, self.host_gid);
        // One line each; the kernel takes a group once.
        for group in self.groups.iter().filter(|group| ![self.inside.gid, self.host_gid].contains(group)) {
            groups.push_str(&format!("\n{group} {group} 1"));
        }
        maps.push(("gid_map", groups));
        maps.push(("uid_map", format!("{} {} 1", self.inside.uid, self.host_uid)));
        maps
    }
}

/// Decides what can be given. Nothing is dropped without an entry in `missing`.
#[must_use]
pub fn prepare(plan: &Plan, features: &Features, group: Option<&Group>) -> Effective {
    let mut missing = Vec::new();
    let namespaces = namespaces(plan, features, &mut missing);
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let wants_uid = plan.identity.host_uid.is_some() || plan.identity.host_gid.is_some();
    let own_ids = wants_uid && features.privileged && !plan.disabled.contains(Guard::Uid);
    if wants_uid && !own_ids {
        lacking(
            plan,
            &mut missing,
            Guard::Uid,
            "an own host uid needs CAP_SETUID; the caller's own uid is shared",
        );
    }
    let (host_uid, host_gid) = if own_ids {
        (plan.identity.host_uid.unwrap_or(own_uid), plan.identity.host_gid.unwrap_or(own_gid))
    } else {
        (own_uid, own_gid)
    };
    let take = match (namespaces.user, own_ids) {
        (true, _) => Some((plan.identity.uid, plan.identity.gid)),
        (false, true) => Some((host_uid, host_gid)),
        (false, false) => None,
    };
    let landlock_abi = landlock_abi(plan, features, &mut missing);
    let seccomp = seccomp(plan, features, &mut missing);
    let (nice, scheduler) = scheduling(plan.priority, features, &mut missing);
    let cgroup = group.is_some() && !plan.disabled.contains(Guard::Cgroup);
    let mut effective = Effective {
        namespaces,
        host_uid,
        host_gid,
        take,
        inside: plan.identity,
        groups: groups(plan, features.privileged),
        privileged: features.privileged,
        landlock_abi,
        landlock_rules: landlock_rules(plan, namespaces.mount),
        seccomp,
        rlimits: plan.rlimits.clone(),
        nice,
        scheduler,
        oom_score_adj: plan.oom_score_adj,
        no_new_privs: plan.no_new_privs && !plan.disabled.contains(Guard::NoNewPrivs),
        caps: !plan.disabled.contains(Guard::Caps),
        cgroup,
        missing,
        enforced: Vec::new(),
    };
    if plan.disabled.contains(Guard::NoNewPrivs) {
        lacking(plan, &mut effective.missing, Guard::NoNewPrivs, "");
    }
    if plan.disabled.contains(Guard::Caps) {
        lacking(plan, &mut effective.missing, Guard::Caps, "");
    }
    limits(plan, group.filter(|_| cgroup), &mut effective);
    effective
}

fn groups(plan: &Plan, privileged: bool) -> Vec<u32> {
    let mut groups = if privileged { plan.groups.clone() } else { Vec::new() };
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn lacking(plan: &Plan, missing: &mut Vec<Missing>, guard: Guard, why: &str) {
    let why = if plan.disabled.contains(guard) { "switched off by the plan" } else { why };
    missing.push(Missing::whole(guard, why));
}

fn namespaces(plan: &Plan, features: &Features, missing: &mut Vec<Missing>) -> Namespaces {
    let mut given = plan.namespaces;
    let off = |guard| plan.disabled.contains(guard);
    if given.user && (off(Guard::Userns) || !features.user_namespaces) {
        given.user = false;
        lacking(
            plan,
            missing,
            Guard::Userns,
            "user namespaces are not usable here (see kernel.unprivileged_userns_clone, user.max_user_namespaces, apparmor)",
        );
    }
    let possible = given.user || features.privileged;
    let why = "needs a user namespace or privileges";
    for (wanted, guard) in [
        (&mut given.pid, Guard::Pidns),
        (&mut given.mount, Guard::Mountns),
        (&mut given.net, Guard::Netns),
        (&mut given.ipc, Guard::Ipcns),
        (&mut given.uts, Guard::Utsns),
        (&mut given.cgroup, Guard::Cgroupns),
    ] {
        if *wanted && (off(guard) || !possible) {
            *wanted = false;
            lacking(plan, missing, guard, why);
        }
    }
    given
}

fn landlock_abi(plan: &Plan, features: &Features, missing: &mut Vec<Missing>) -> u32 {
    let Some(landlock) = &plan.landlock else { return 0 };
    if plan.disabled.contains(Guard::Landlock) {
        lacking(plan, missing, Guard::Landlock, "");
        return 0;
    }
    missing.extend(landlock::missing(landlock, features.landlock_abi));
    features.landlock_abi
}

/// Rules in terms of what the process will see: with no mount namespace those are the sources on the host.
fn landlock_rules(plan: &Plan, mounted: bool) -> Vec<PathRule> {
    let Some(landlock) = &plan.landlock else { return Vec::new() };
    if mounted || plan.mounts.is_empty() {
        return landlock.rules.clone();
    }
    landlock
        .rules
        .iter()
        .filter_map(|rule| Some(PathRule { path: outside(plan, &rule.path)?, ..*rule }))
        .collect()
}

/// Where a path of the sandbox lies on the host, through the deepest mount above it.
fn outside(plan: &Plan, path: &str) -> Option<String> {
    let below = |target: &str| match path.strip_prefix(target) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Some(rest.to_owned()),
        _ => None,
    };
    plan.mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Bind { source, target, .. } => Some((target.len(), format!("{source}{}", below(target)?))),
            Mount::Proc => Some((5, format!("/proc{}", below("/proc")?))),
            Mount::Dev => Some((4, format!("/dev{}", below("/dev")?))),
            // Without mounts there is no layer, and the folder itself must not be changed.
            Mount::Tmpfs { .. }
            | Mount::Symlink { .. }
            | Mount::Folder { .. }
            | Mount::Overlay { .. }
            | Mount::Sealed { .. } => None,
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, path)| path)
}

fn seccomp(plan: &Plan, features: &Features, missing: &mut Vec<Missing>) -> Option<Seccomp> {
    let mut seccomp = plan.seccomp.clone()?;
    if plan.disabled.contains(Guard::Seccomp) || !features.seccomp_filter {
        lacking(plan, missing, Guard::Seccomp, "the kernel has no seccomp filters");
        return None;
    }
    if plan.deterministic && !features.seccomp_notify {
        lacking(plan, missing, Guard::Seccomp, "the kernel shows no calls: a job could not be ended by one");
        return None;
    }
    if !seccomp.notify.is_empty() && !features.seccomp_notify && plan.watched.is_some() {
        lacking(plan, missing, Guard::Seccomp, "the kernel shows no calls: nobody could answer them");
        return None;
    }
    if !seccomp.notify.is_empty() && !features.seccomp_notify {
        seccomp.notify.clear();
        missing.push(Missing::part(Guard::Seccomp, "no user notification: refused paths cannot be named"));
    }
    Some(seccomp)
}

/// PRC-33: 0 highest, 16 normal, 31 idle. Nice runs the other way round from -8 to 19.
fn scheduling(priority: u8, features: &Features, missing: &mut Vec<Missing>) -> (i32, Option<i32>) {
    let steps = i32::from(priority) - i32::from(PRIORITY_NORMAL);
    let nice = if steps < 0 { steps / 2 } else { steps * 19 / 15 };
    if nice < 0 && !features.nice {
        missing.push(Missing::part(Guard::Rlimits, "a priority above normal needs CAP_SYS_NICE"));
        return (0, None);
    }
    let idle = (priority == crate::plan::PRIORITY_MAX).then_some(libc::SCHED_IDLE);
    (nice, idle)
}

/// Which limits cgroups hold, and what stands in for those that they do not.
fn limits(plan: &Plan, group: Option<&Group>, effective: &mut Effective) {
    let rlimits_off = plan.disabled.contains(Guard::Rlimits);
    let limits = &plan.limits;
    let mut enforced = group.map(|group| group.enforced().to_vec()).unwrap_or_default();
    let mut stand_in = |kind, resource, value: Option<u64>, missing: &mut Vec<Missing>| {
        let Some(value) = value else { return };
        let held = enforced.iter().any(|held| held.limit == kind && held.by != EnforcedBy::Nothing);
        if held {
            return;
        }
        enforced.retain(|held| held.limit != kind);
        let by = match resource {
            Some(resource) if !rlimits_off => {
                effective.rlimits.retain(|limit| limit.resource != resource);
                effective.rlimits.push(Rlimit { resource, soft: value, hard: value });
                EnforcedBy::Rlimit
            }
            _ => EnforcedBy::Nothing,
        };
        enforced.push(Enforced { limit: kind, by });
        if kind != LimitKind::CpuTime || by == EnforcedBy::Nothing {
            missing.push(if plan.disabled.contains(Guard::Cgroup) {
                Missing::whole(Guard::Cgroup, "switched off by the plan")
            } else {
                let text = format!("no writable cgroup holds {kind:?}; held by {by:?}");
                Missing { guard: Guard::Cgroup, why: text, whole: by == EnforcedBy::Nothing }
            });
        }
    };
    let missing = &mut effective.missing;
    stand_in(LimitKind::Memory, Some(Resource::AddressSpace), limits.memory_bytes_max, missing);
    // The kernel exempts uid 0 of the host from this one.
    let processes = (effective.host_uid != 0).then_some(Resource::Processes);
    stand_in(LimitKind::Processes, processes, limits.processes_max, missing);
    stand_in(LimitKind::CpuWeight, None, limits.cpu_weight.map(u64::from), missing);
    stand_in(LimitKind::CpuQuota, None, limits.cpu_millicores_max.map(u64::from), missing);
    if let Some(io) = &limits.io {
        stand_in(LimitKind::Io, None, (!io.max.is_empty()).then_some(0), missing);
        stand_in(LimitKind::IoWeight, None, io.weight.map(u64::from), missing);
    }
    let left_out = group.map(Group::left_out).unwrap_or_default();
    missing.extend(
        left_out.iter().map(|why| Missing::part(Guard::Cgroup, format!("a disk is not limited: {why}"))),
    );
    stand_in(LimitKind::CpuTime, Some(Resource::CpuSeconds), limits.cpu_seconds_max, missing);
    effective.enforced = enforced;
    if rlimits_off {
        effective.rlimits.clear();
        lacking(plan, missing, Guard::Rlimits, "");
    }
}
