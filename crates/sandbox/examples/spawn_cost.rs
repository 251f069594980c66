//! What a sandbox costs: ours with six namespaces and a root, against a bare `clone3` with the same namespaces.
//!
//! `cargo run --release -p sandbox --example spawn_cost [rounds]`. Interleaved rounds, medians, to the end of a
//! program that ends at once. On a shared machine read the ratios.

use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use sandbox::process::reap;
use sandbox::seccomp::Profile;
use sandbox::{Executable, Features, Mount, Namespaces, Plan, launch};

const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("end") {
        return Ok(());
    }
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS), |text| text.parse())?;
    let features = Features::detect();
    let image: Vec<OwnedFd> = vec![File::open("/proc/self/exe")?.into()];
    let six = Namespaces { user: !features.privileged, cgroup: false, ..Namespaces::ALL };
    let kinds: Vec<(&str, Plan)> = vec![
        ("no namespace, no root", bare(Namespaces::NONE)),
        ("bare, net only", bare(Namespaces { net: true, user: six.user, ..Namespaces::NONE })),
        ("bare, same namespaces", bare(six)),
        ("bare, same without net", bare(Namespaces { net: false, ..six })),
        ("sandbox without net", sandboxed(Namespaces { net: false, ..six })),
        ("sandbox (root, landlock, seccomp, caps)", sandboxed(six)),
        ("sandbox + user namespace", sandboxed(Namespaces { user: true, ..six })),
    ];
    let mut times: Vec<Vec<u128>> = vec![Vec::with_capacity(rounds); kinds.len()];
    for _ in 0..rounds {
        for ((_, plan), times) in kinds.iter().zip(&mut times) {
            let start = Instant::now();
            let launched = launch(plan, &image, &features, None)?;
            while !matches!(reap()?, Some(reaped) if reaped.pid == launched.pid) {
                std::thread::yield_now();
            }
            times.push(start.elapsed().as_micros());
        }
    }
    let medians: Vec<u128> = times
        .iter_mut()
        .map(|times| {
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        })
        .collect();
    let base = kinds.iter().zip(&medians).find(|((name, _), _)| *name == "bare, same namespaces");
    let base = base.map_or(1, |(_, median)| (*median).max(1));
    println!("{rounds} rounds, spawn to reaped, median");
    for ((name, _), median) in kinds.iter().zip(&medians) {
        println!("{name:<42} {median:>6} µs  {:>5.2} × bare", *median as f64 / base as f64);
    }
    Ok(())
}

fn bare(namespaces: Namespaces) -> Plan {
    let mut plan = Plan::new("end", Executable::Slot(0), Profile::Program);
    plan.namespaces = namespaces;
    plan.landlock = None;
    plan.seccomp = None;
    plan.rlimits.clear();
    plan.dumpable = true;
    plan.no_new_privs = false;
    plan.required = sandbox::GuardSet::EMPTY;
    plan.disabled = sandbox::GuardSet::of(&[sandbox::Guard::Caps]);
    plan.arguments = vec!["end".to_owned(), "end".to_owned()];
    plan.host_name.clear();
    plan
}

fn sandboxed(namespaces: Namespaces) -> Plan {
    let bind = |path: &str| Mount::Bind {
        source: path.to_owned(),
        target: path.to_owned(),
        writable: false,
        optional: true,
    };
    let mut plan = Plan::new("end", Executable::Slot(0), Profile::Program).with_mounts(vec![
        bind("/usr"),
        bind("/bin"),
        bind("/lib"),
        bind("/lib64"),
        Mount::Proc,
        Mount::Dev,
        Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max: 1 << 20, mode: 0o1777 },
    ]);
    plan.namespaces = namespaces;
    plan.arguments = vec!["end".to_owned(), "end".to_owned()];
    plan
}
