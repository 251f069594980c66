//! What a sandbox costs: ours with six namespaces and a root, against a bare `clone3` with the same namespaces.
//!
//! `cargo run --release -p sandbox --example spawn_cost [rounds]`. Interleaved rounds, medians, to the end of a
//! program that ends at once. On a shared machine read the ratios.

use std::error::Error;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use sandbox::process::reap;
use sandbox::seccomp::Profile;
use sandbox::{Executable, Features, Mount, Namespaces, Plan, launch};

const ROUNDS: usize = 200;
const BASE: &str = "bare clone3, same namespaces";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("end") {
        return Ok(());
    }
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS), |text| text.parse())?;
    let features = Features::detect();
    let image: Vec<OwnedFd> = vec![File::open("/proc/self/exe")?.into()];
    let six = Namespaces { user: !features.privileged, cgroup: false, ..Namespaces::ALL };
    let own = if features.privileged { 0 } else { libc::CLONE_NEWUSER };
    let rest = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | own;
    let kinds: Vec<(&str, Kind)> = vec![
        ("bare clone3", Kind::Bare(0)),
        ("bare clone3, net only", Kind::Bare(libc::CLONE_NEWNET | own)),
        ("bare clone3, same without net", Kind::Bare(rest)),
        (BASE, Kind::Bare(rest | libc::CLONE_NEWNET)),
        ("sandbox without net", Kind::Ours(Box::new(sandboxed(Namespaces { net: false, ..six })))),
        ("sandbox (root, landlock, seccomp, caps)", Kind::Ours(Box::new(sandboxed(six)))),
        ("sandbox + user namespace", Kind::Ours(Box::new(sandboxed(Namespaces { user: true, ..six })))),
    ];
    let mut times: Vec<Vec<u128>> = vec![Vec::with_capacity(rounds); kinds.len()];
    for _ in 0..rounds {
        for ((_, kind), times) in kinds.iter().zip(&mut times) {
            let start = Instant::now();
            let pid = match kind {
                Kind::Bare(flags) => bare(*flags, &image)?,
                Kind::Ours(plan) => launch(plan, &image, &features, None)?.pid,
            };
            while !matches!(reap()?, Some(reaped) if reaped.pid == pid) {
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
    let base = kinds.iter().zip(&medians).find(|((name, _), _)| *name == BASE);
    let base = base.map_or(1, |(_, median)| (*median).max(1));
    println!("{rounds} rounds, spawn to reaped, median");
    for ((name, _), median) in kinds.iter().zip(&medians) {
        println!("{name:<42} {median:>6} µs  {:>5.2} × bare", *median as f64 / base as f64);
    }
    Ok(())
}

enum Kind {
    Bare(i32),
    Ours(Box<Plan>),
}

/// The floor: namespaces and `execveat`, nothing else.
fn bare(flags: i32, image: &[OwnedFd]) -> std::io::Result<i32> {
    let image = image.first().map_or(-1, AsRawFd::as_raw_fd);
    let words = [c"end".as_ptr(), c"end".as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    // SAFETY: clone_args is plain numbers; one thread; the child executes or ends and touches nothing shared.
    unsafe {
        let mut arguments: libc::clone_args = std::mem::zeroed();
        arguments.flags = flags as u32 as u64;
        arguments.exit_signal = libc::SIGCHLD as u64;
        let size = std::mem::size_of::<libc::clone_args>();
        match libc::syscall(libc::SYS_clone3, &raw mut arguments, size) {
            0 => {
                let empty = c"".as_ptr();
                libc::syscall(
                    libc::SYS_execveat,
                    image,
                    empty,
                    words.as_ptr(),
                    none.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                libc::_exit(1)
            }
            -1 => Err(std::io::Error::last_os_error()),
            pid => Ok(pid as i32),
        }
    }
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
