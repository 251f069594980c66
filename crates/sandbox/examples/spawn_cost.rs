//! What a sandbox costs, from the decision to start a program to the program's first instruction: ours with six
//! namespaces and a root, a bare `clone3` with the same namespaces, and commands of others that do the same.
//!
//! `cargo run --release -p sandbox --example spawn_cost [ROUNDS] [--folder DIR] [--peers FILE] [--samples]`. Interleaved
//! rounds, medians. The program is a handful of instructions (write a byte, end), written to `DIR/first`, so that nothing
//! of its own start dilutes the ratios. FILE has a line for each other command: name, program and arguments, separated by
//! tabs; the command must start `DIR/first` with its own standard output. `--samples` prints each sample for programs.
//! On a shared machine read the ratios.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::process::reap;
use sandbox::seccomp::Profile;
use sandbox::{Descriptor, Executable, Features, Mount, Namespaces, Plan, launch};

const ROUNDS: usize = 200;
const BASE: &str = "bare clone3, same namespaces";
/// A contestant that has not come so far by then never will.
const FIRST_TIMEOUT_S: i64 = 10;

/// Writes a byte of its stack to standard output and ends.
const CODE: [u8; 33] = [
    0xb8, 1, 0, 0, 0, // mov eax, SYS_write
    0xbf, 1, 0, 0, 0, // mov edi, 1
    0x48, 0x89, 0xe6, // mov rsi, rsp
    0xba, 1, 0, 0, 0, // mov edx, 1
    0x0f, 0x05, // syscall
    0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
    0x31, 0xff, // xor edi, edi
    0x0f, 0x05, // syscall
    0x0f, 0x0b, // ud2: never reached
    0x90, 0x90,
];
const BASE_ADDRESS: u64 = 0x40_0000;
const HEADERS_BYTES: u64 = 64 + 56;

/// The smallest static ELF64 around `CODE`: its header, one loadable segment, the code.
fn first_program() -> Vec<u8> {
    let size = HEADERS_BYTES + CODE.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let wide = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    // Executable for x86-64; entry, program headers at 64, no sections.
    half(&mut elf, &[2, 62]);
    word(&mut elf, &[1]);
    wide(&mut elf, &[BASE_ADDRESS + HEADERS_BYTES, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    // Loadable, readable and executable.
    word(&mut elf, &[1, 5]);
    wide(&mut elf, &[0, BASE_ADDRESS, BASE_ADDRESS, size, size, 0x1000]);
    elf.extend(CODE);
    elf
}

struct Options {
    rounds: usize,
    folder: PathBuf,
    peers: Option<PathBuf>,
    samples: bool,
}

impl Options {
    fn read() -> Result<Options, Box<dyn Error>> {
        let default = std::env::temp_dir().join(format!("spawn-cost-{}", std::process::id()));
        let mut options = Options { rounds: ROUNDS, folder: default, peers: None, samples: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--folder" => options.folder = value()?.into(),
                "--peers" => options.peers = Some(value()?.into()),
                "--samples" => options.samples = true,
                rounds => options.rounds = rounds.parse()?,
            }
        }
        Ok(options)
    }
}

enum Kind {
    Bare(i32),
    Ours(Box<Plan>),
    Command(Vec<String>),
}

struct Contestant {
    name: String,
    kind: Kind,
    us: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::read()?;
    let made = !options.folder.exists();
    if made {
        std::fs::create_dir(&options.folder)?;
    }
    let result = measure(&options);
    if made {
        std::fs::remove_dir_all(&options.folder)?;
    }
    let mut all = result?;
    if options.samples {
        for one in &all {
            one.us.iter().for_each(|us| println!("{}\t{us:.1}", one.name));
        }
        return Ok(());
    }
    let mut median = |one: &mut Contestant| {
        one.us.sort_by(f64::total_cmp);
        one.us.get(one.us.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let medians: Vec<f64> = all.iter_mut().map(&mut median).collect();
    let base = all.iter().zip(&medians).find(|(one, _)| one.name == BASE).map_or(1.0, |(_, median)| *median);
    println!("{} rounds, spawn to first instruction, median", options.rounds);
    for (one, median) in all.iter().zip(&medians) {
        println!("{:<42} {median:>6.0} µs  {:>5.2} × bare", one.name, median / base);
    }
    Ok(())
}

fn measure(options: &Options) -> Result<Vec<Contestant>, Box<dyn Error>> {
    let program = options.folder.join("first");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o755).open(&program)?;
    file.write_all(&first_program())?;
    drop(file);
    let (seen, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let features = Features::detect();
    let slots: Vec<OwnedFd> = vec![File::open(&program)?.into(), told];
    let mut all = contestants(&features);
    if let Some(file) = &options.peers {
        all.extend(peers(file)?);
    }
    for _ in 0..options.rounds {
        for one in &mut all {
            let start = Instant::now();
            let pid = one.kind.start(&slots, &features).map_err(|error| format!("{}: {error}", one.name))?;
            wait_for_byte(&seen).map_err(|error| format!("{}: {error}", one.name))?;
            one.us.push(start.elapsed().as_secs_f64() * 1e6);
            while !matches!(reap()?, Some(reaped) if reaped.pid == pid) {
                std::thread::yield_now();
            }
        }
    }
    Ok(all)
}

fn contestants(features: &Features) -> Vec<Contestant> {
    let six = Namespaces { user: !features.privileged, cgroup: false, ..Namespaces::ALL };
    let own = if features.privileged { 0 } else { libc::CLONE_NEWUSER };
    let rest = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | own;
    let one = |name: &str, kind| Contestant { name: name.to_owned(), kind, us: Vec::new() };
    let ours = |name, namespaces| one(name, Kind::Ours(Box::new(sandboxed(namespaces))));
    let mut all = vec![
        one("bare clone3", Kind::Bare(0)),
        one("bare clone3, net only", Kind::Bare(libc::CLONE_NEWNET | own)),
        one("bare clone3, same without net", Kind::Bare(rest)),
        one(BASE, Kind::Bare(rest | libc::CLONE_NEWNET)),
        ours("sandbox without net", Namespaces { net: false, ..six }),
        ours("sandbox (root, landlock, seccomp, caps)", six),
    ];
    // Without privileges it has one already.
    if features.privileged {
        all.push(ours("sandbox + user namespace", Namespaces { user: true, ..six }));
    }
    all
}

fn peers(file: &Path) -> Result<Vec<Contestant>, Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let one = |(name, words): (&str, &str)| {
        let words = words.split('\t').map(str::to_owned).collect();
        Contestant { name: name.to_owned(), kind: Kind::Command(words), us: Vec::new() }
    };
    Ok(lines.map(one).collect())
}

impl Kind {
    fn start(&self, slots: &[OwnedFd], features: &Features) -> Result<i32, Box<dyn Error>> {
        match self {
            Kind::Bare(flags) => Ok(bare(*flags, slots)?),
            Kind::Ours(plan) => Ok(launch(plan, slots, features, None)?.pid),
            Kind::Command(words) => {
                let (program, arguments) = words.split_first().ok_or("a peer without a program")?;
                let told = slots.get(1).ok_or("no pipe")?.try_clone()?;
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null()).stdout(told);
                Ok(i32::try_from(command.spawn()?.id())?)
            }
        }
    }
}

fn wait_for_byte(seen: &OwnedFd) -> Result<(), Box<dyn Error>> {
    let limit = Timespec { tv_sec: FIRST_TIMEOUT_S, tv_nsec: 0 };
    if poll(&mut [PollFd::new(seen, PollFlags::IN)], Some(&limit))? == 0 {
        return Err(format!("nothing ran within {FIRST_TIMEOUT_S} s").into());
    }
    match rustix::io::read(seen, &mut [0; 1])? {
        1 => Ok(()),
        _ => Err("the pipe has ended".into()),
    }
}

/// The floor: namespaces, standard output and `execveat`, nothing else.
fn bare(flags: i32, slots: &[OwnedFd]) -> std::io::Result<i32> {
    let fd = |slot: usize| slots.get(slot).map_or(-1, AsRawFd::as_raw_fd);
    let (image, told) = (fd(0), fd(1));
    let words = [c"first".as_ptr(), std::ptr::null()];
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
                libc::dup2(told, 1);
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
    let mut plan = Plan::new("first", Executable::Slot(0), Profile::Program).with_mounts(vec![
        bind("/usr"),
        bind("/bin"),
        bind("/lib"),
        bind("/lib64"),
        Mount::Proc,
        Mount::Dev,
        Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max: 1 << 20, mode: 0o1777 },
    ]);
    plan.namespaces = namespaces;
    plan.arguments = vec!["first".to_owned()];
    plan.descriptors = vec![Descriptor { slot: 1, target: 1 }];
    plan
}
