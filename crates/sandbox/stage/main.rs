//! The tests' other half. `launch` reads a plan from its standard input and carries it out, from one thread;
//! `probe` is what runs inside and says what it could do; `suite` tries every escape attempt.

mod determined;
mod probe;
mod suite;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use sandbox::cgroup::Tree;
use sandbox::process::{ExitStatus, reap};
use sandbox::{Features, LaunchError, Launched, Parts, Plan, Program, Told, inner, launch_from};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["launch", options @ ..] => stage(options),
        ["monitor"] => monitor(),
        ["probe", rest @ ..] => probe::run(rest),
        ["attempt", name] => Ok(ExitCode::from(sandbox::attempts::main(name))),
        ["suite", rest @ ..] => suite::run(rest),
        _ => Err(io::Error::other("usage: launch|monitor|probe|attempt|suite")),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            println!("error {} {error}", error.raw_os_error().unwrap_or(0));
            ExitCode::from(99)
        }
    }
}

const PARTS: Parts = Parts { part, watch: |_| Err(io::ErrorKind::Unsupported.into()) };

/// What a plan of a part goes on as: the probe, in this process's own copy.
fn part(arguments: &[String]) -> u8 {
    let words: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
    println!("part");
    u8::from(probe::run(&words).is_err())
}

/// Slots: 0 this image, 1 to 3 the standard streams, 4 an extra file.
fn slots() -> io::Result<Vec<OwnedFd>> {
    let standard = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    Ok(vec![
        File::open("/proc/self/exe")?.into(),
        standard(io::stdin().as_fd())?,
        standard(io::stdout().as_fd())?,
        standard(io::stderr().as_fd())?,
        File::open("/etc/passwd")?.into(),
    ])
}

fn features(options: &[&str]) -> Features {
    let mut features = Features::detect();
    for option in options {
        match option.split_once('=') {
            Some(("landlock_abi", abi)) => features.landlock_abi = abi.parse().unwrap_or(0),
            Some(("user_namespaces", _)) => features.user_namespaces = false,
            Some(("privileged", _)) => features.privileged = false,
            Some(("seccomp_notify", _)) => features.seccomp_notify = false,
            Some(("cgroups", _)) => {
                (features.memory, features.pids, features.cpu, features.io) = (None, None, None, None);
                (features.freezer, features.unified) = (None, None);
            }
            _ => {}
        }
    }
    features
}

fn stage(options: &[&str]) -> io::Result<ExitCode> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let mut slots = slots()?;
    for option in options {
        if let Some(path) = option.strip_prefix("slot=") {
            slots.push(File::open(path)?.into());
        }
    }
    let plan = Plan::decode(&bytes, slots.len()).map_err(io::Error::other)?;
    let features = features(options);
    // Two unrelated open files, close-on-exec and not: neither may reach the program.
    let _stray = rustix::io::dup(io::stdout())?;
    if options.contains(&"threads") {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
    }
    let tree = options
        .contains(&"cgroup")
        .then(|| Tree::create(&features, &format!("test-{}", std::process::id()), false));
    let group = tree.as_ref().map(|tree| tree.group(&plan.label, &plan.limits)).transpose()?;
    let result = launch_from(&plan, &slots, &features, group.as_ref(), Some(PARTS));
    let code = match result {
        Ok(launched) => {
            report(&launched);
            let commands = options.iter().filter_map(|option| option.strip_prefix("run="));
            if let Some(listener) = launched.listener.as_ref().filter(|_| plan.deterministic) {
                return determined::attend(listener, &launched, options);
            }
            let code = wait(launched, &plan, commands.filter_map(|place| place.parse().ok()).collect())?;
            if let Some(group) = &group {
                println!("oom_kills {}", group.oom_kills().unwrap_or(0));
                println!("memory_peak_bytes {}", group.memory_peak_bytes().unwrap_or(0));
                println!("cpu_time_us {}", group.cpu_time_us().unwrap_or(0));
            }
            code
        }
        Err(error) => {
            failed(&error);
            ExitCode::from(98)
        }
    };
    if let (Some(group), Some(tree)) = (group, tree) {
        group.kill()?;
        for _ in 0..100 {
            while reap()?.is_some() {}
            if group.remove().is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        group.remove()?;
        tree.remove()?;
    }
    Ok(code)
}

fn failed(error: &LaunchError) {
    let (step, errno) = error.step_and_errno();
    println!("failed {step}: {errno}: {error}");
}

fn report(launched: &Launched) {
    for missing in &launched.missing {
        println!("missing {} {}", missing.guard, missing.why);
    }
    for enforced in &launched.enforced {
        println!("enforced {:?} by {:?}", enforced.limit, enforced.by);
    }
    if let Some(program) = &launched.program {
        println!("behind {} is {}", launched.pid, program.pid);
    }
    let _ = io::stdout().flush();
}

/// Commands run one after the other, once the program is there to stay.
fn wait(mut launched: Launched, plan: &Plan, mut commands: Vec<u8>) -> io::Result<ExitCode> {
    let (settles_later, before) = (plan.settles_later(), plan.before as usize);
    commands.reverse();
    // To one that was never laid down there is no answer: the one behind it is not held up.
    let mut next = |program: &Program| {
        while let Some(place) = commands.pop() {
            program.run(place)?;
            if (place as usize) < plan.commands.len() {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    if let Some(program) = launched.program.as_ref().filter(|_| !settles_later) {
        next(program)?;
    }
    loop {
        // First what it says: an end is the last of it.
        let ended = reap()?.filter(|reaped| reaped.pid == launched.pid);
        while let Some(told) = launched.program.as_mut().and_then(Program::hear) {
            let Some(program) = &launched.program else { continue };
            match told {
                Told::Settled => println!("settled {}", program.pid),
                Told::Done { command, status } => println!("done {command} {status:?}"),
            }
            let _ = io::stdout().flush();
            if !matches!(told, Told::Done { command, .. } if (command as usize) < before) {
                next(program)?;
            }
        }
        if let Some(reaped) = ended {
            match launched.program.as_mut().map_or(Some(reaped.status), Program::ended) {
                None => println!("init {:?}", reaped.status),
                Some(ExitStatus::Code(code)) => println!("exit {code}"),
                Some(ExitStatus::Signal(signal)) => println!("signal {signal}"),
            }
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// PID 1 of a sandbox: launches the plan that stands in its descriptor 5, answers its notifications, reaps.
fn monitor() -> io::Result<ExitCode> {
    sandbox::process::forbid_inspection()?;
    let mut bytes = Vec::new();
    File::from(sandbox::inherited::adopt_descriptor(5)?).read_to_end(&mut bytes)?;
    let slots = vec![
        sandbox::inherited::adopt_descriptor(6)?,
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ];
    let plan = Plan::decode(&bytes, slots.len()).map_err(io::Error::other)?;
    println!("monitor pid {}", std::process::id());
    let launched = match inner(&plan, &slots, &Features::for_inner()) {
        Ok(launched) => launched,
        Err(error) => {
            failed(&error);
            return Ok(ExitCode::from(98));
        }
    };
    let listener = launched.listener.as_ref().map(|fd| fd.try_clone()).transpose()?;
    let listener = listener.map(sandbox::notify::Listener::from);
    loop {
        if let Some(listener) = &listener {
            let mut polled = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            rustix::event::poll(&mut polled, Some(&wait))?;
            let [polled] = polled;
            if polled.revents().contains(rustix::event::PollFlags::IN)
                && let Some(call) = listener.receive()?
            {
                println!("saw {:?}", listener.subject(&call));
                listener.go_on(&call)?;
                continue;
            }
        }
        match reap()? {
            Some(reaped) if reaped.pid == launched.pid => {
                println!("inner {:?}", reaped.status);
                return Ok(ExitCode::SUCCESS);
            }
            Some(_) => {}
            None => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
}
