//! A program whose init is its monitor.

use std::{os::fd::OwnedFd, path::Path};

use sandbox::{DESCRIPTOR_TARGET_MAX, Features, Guard, GuardSet, Plan, Watched, seccomp::NotifyCall};

use super::Order;
use crate::manifest::{EgressConfig, ProgramConfig};

/// Of TCP the monitor answers all: a socket of the host's that another program has handed over is recognised by nobody else.
const ANSWERED: [NotifyCall; 3] = [NotifyCall::Connect, NotifyCall::Bind, NotifyCall::Listen];
/// Without these it could look away.
const NEEDED: [Guard; 3] = [Guard::Seccomp, Guard::Pidns, Guard::Netns];
/// What is made below it is nobody else's.
const PRIVATE: &str = "/run";
/// What its init has stands nowhere among its own; the numbers only have to be nobody else's.
const NAMES_FD: u32 = DESCRIPTOR_TARGET_MAX - 2;
const DATAGRAMS_FD: u32 = DESCRIPTOR_TARGET_MAX;

/// Of one in its own network, with a way out of it.
pub(super) fn let_out(plan: &mut Plan, egress: &EgressConfig) {
    answer(plan, Watched { slot: 0, leads_out: true, proxy: egress.proxy });
    plan.name_server = Some(NAMES_FD);
    plan.datagrams = egress.has_datagrams().then_some(DATAGRAMS_FD);
    // It is born in the host's network.
    if let Some(seccomp) = plan.seccomp.as_mut() {
        seccomp.notify.push(NotifyCall::Socket);
    }
    let held = GuardSet::of(&[Guard::Mountns, Guard::Pidns, Guard::Netns, Guard::Landlock]);
    plan.required = held.iter().fold(plan.required, GuardSet::with);
    if egress.proxy {
        for (name, value) in kit::way_out::proxy_variables() {
            if !plan.environment.iter().any(|(given, _)| *given == name) {
                plan.environment.push((name, value));
            }
        }
    }
}

/// Of one that has no way out, and sees files in which another program could hand it a socket that has. Where the kernel shows no calls
/// nobody has a way out.
pub(super) fn shut_in(plan: &mut Plan, program: &ProgramConfig, features: &Features) {
    let sees_others = !program.fs.is_empty()
        || program.folders.iter().any(|folder| !Path::new(&folder.path).starts_with(PRIVATE));
    let can = plan.namespaces.net && plan.capabilities_kept == 0 && features.seccomp_notify;
    let can = can && (features.user_namespaces || features.privileged);
    if sees_others && can && !NEEDED.into_iter().any(|guard| plan.disabled.contains(guard)) {
        answer(plan, Watched { slot: 0, leads_out: false, proxy: false });
    }
}

fn answer(plan: &mut Plan, watched: Watched) {
    plan.watched = Some(watched);
    if let Some(landlock) = plan.landlock.as_mut() {
        landlock.tcp = false;
    }
    if let Some(seccomp) = plan.seccomp.as_mut() {
        seccomp.notify = ANSWERED.to_vec();
    }
}

/// The end of the channel on which its init is told what to do. The last slot, since those before it are counted already.
pub(in crate::shell) fn give(order: &mut Order, control: OwnedFd) {
    let slot = order.stored.len().saturating_add(order.fds.len());
    if let Some(watched) = order.plan.watched.as_mut() {
        watched.slot = u32::try_from(slot).unwrap_or(u32::MAX);
        order.fds.push(control);
    }
}
