//! A program whose init is its monitor.

use std::{os::fd::OwnedFd, path::Path};

use sandbox::{
    DESCRIPTOR_TARGET_MAX, Features, Guard, GuardSet, Plan, Published, Watched, seccomp::NotifyCall,
};

use super::{Order, slots};
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
    answer(plan);
    if let Some(watched) = plan.watched.as_mut() {
        (watched.leads_out, watched.proxy) = (true, egress.proxy);
    }
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
        answer(plan);
    }
}

/// To be called before descriptors of the keeper's are handed over.
pub(super) fn publish(order: &mut Order, published: &[(String, u16)]) {
    if published.is_empty() {
        return;
    }
    answer(&mut order.plan);
    let names: Vec<String> = published.iter().map(|(stored, _)| stored.clone()).collect();
    slots::put_first(order, &names);
    if let Some(watched) = order.plan.watched.as_mut() {
        let places = (0..).zip(published).map(|(slot, (_, port))| Published { slot, port: *port });
        watched.published = places.collect();
    }
}

/// It leads nowhere yet.
fn answer(plan: &mut Plan) {
    plan.watched.get_or_insert(Watched { slot: 0, leads_out: false, proxy: false, published: Vec::new() });
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
