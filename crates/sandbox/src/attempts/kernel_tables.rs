//! Tables and settings of the kernel: each tells something else of the host, or changes something else of it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::{Attempt, BELONGS_TO_ROOT, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, held};
use crate::guard::Guard::{Caps, Mountns, Netns, Userns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("read_kernel_memory", "reads the kernel's memory", &[Mountns, Caps, Userns], core)
        .rootless(BELONGS_TO_ROOT),
    Attempt::new("read_the_timers", "learns which timers run, of which process", &[Mountns], |_| {
        read("/proc/timer_list")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new(
        "read_the_interrupts",
        "learns from counts of interrupts what others type",
        &[Mountns],
        |_| read("/proc/interrupts"),
    ),
    Attempt::new("count_the_keys", "learns how many keys each user has", &[Mountns], |_| {
        read("/proc/key-users")
    }),
    Attempt::new("read_the_pressure", "learns how busy the host is", &[Mountns], |_| {
        read("/proc/pressure/cpu")
    }),
    Attempt::new("read_the_slabs", "learns what the kernel has allocated", &[Mountns], |_| {
        read("/proc/slabinfo")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new(
        "read_the_page_flags",
        "learns what each page of the machine is used for",
        &[Mountns],
        |_| read("/proc/kpageflags"),
    )
    .rootless(BELONGS_TO_ROOT),
    Attempt::new(
        "count_the_pages",
        "learns how often each page of the machine is mapped",
        &[Mountns],
        |_| read("/proc/kpagecount"),
    )
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("assign_the_pages", "learns which control group owns each page", &[Mountns], |_| {
        read("/proc/kpagecgroup")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("read_the_kernels_mappings", "learns who in the kernel mapped memory", &[Mountns], |_| {
        read("/proc/vmallocinfo")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("read_the_page_types", "learns how broken up the machine's memory is", &[Mountns], |_| {
        read("/proc/pagetypeinfo")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new(
        "learn_the_kernels_addresses",
        "learns where functions of the kernel lie",
        &[Mountns, Caps, Userns],
        |_| tells_addresses("/proc/kallsyms"),
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("read_the_map_of_memory", "learns where the machine's memory lies", &[Caps, Userns], |_| {
        tells_addresses("/proc/iomem")
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new(
        "read_a_page_map",
        "learns the physical address of its own memory",
        &[Caps, Userns],
        page_map,
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("see_the_hosts_mounts", "sees where the host's file systems are", &[Mountns], mounts),
    Attempt::new("see_kernel_objects", "sees the devices and drivers of the host", &[Mountns], |_| {
        fs::read_dir("/sys/devices")?;
        Ok(())
    }),
    Attempt::new("read_the_firmware", "reads what the machine's firmware says", &[Mountns], |_| {
        fs::read_dir("/sys/firmware")?;
        Ok(())
    }),
    Attempt::new("pull_the_emergency_brake", "opens the trigger of emergency actions", &[Mountns], |_| {
        may_write("/proc/sysrq-trigger")
    })
    .rootless(BELONGS_TO_ROOT),
    Attempt::new(
        "choose_who_gets_core_files",
        "opens the setting that names a program for the kernel to start",
        &[Mountns],
        |_| may_write("/proc/sys/kernel/core_pattern"),
    )
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("route_packets", "makes its network pass packets on", &[Mountns, Caps], forward)
        .inside_only(),
    Attempt::new("allow_more_namespaces", "raises the limit of its own namespaces", &[Mountns, Caps], |_| {
        may_write("/proc/sys/user/max_user_namespaces")
    })
    .inside_only(),
    Attempt::new(
        "read_the_table_of_files",
        "learns who on the host serves which socket",
        &[Netns],
        |canaries| {
            let text = fs::read_to_string("/proc/net/unix")?;
            if text.contains(canaries.get("stream_name")?) { Ok(()) } else { Err(held("no such server")) }
        },
    ),
];

/// A file that is covered is empty.
fn read(path: &str) -> Result<(), Failure> {
    let mut first = [0; 16];
    match fs::File::open(path)?.read(&mut first)? {
        0 => Err(held("an empty file")),
        _ => Ok(()),
    }
}

fn core(_: &Canaries) -> Result<(), Failure> {
    let mut magic = [0; 4];
    fs::File::open("/proc/kcore")?.read_exact(&mut magic)?;
    if magic == *b"\x7fELF" { Ok(()) } else { Err(held("no memory")) }
}

/// The names of all functions would be some megabytes.
const TABLE_BYTES_MAX: u64 = 16 * 1024;

/// A line begins with an address; who may not know it reads zeros.
fn tells_addresses(path: &str) -> Result<(), Failure> {
    let mut start = Vec::new();
    fs::File::open(path)?.take(TABLE_BYTES_MAX).read_to_end(&mut start)?;
    let text = String::from_utf8_lossy(&start);
    let address = |line: &str| {
        let word = line.trim_start().split([' ', '-']).next().unwrap_or_default();
        u64::from_str_radix(word, 16).is_ok_and(|address| address != 0)
    };
    // The first may be zero for everybody.
    if text.lines().skip(1).any(address) { Ok(()) } else { Err(held("zeros instead of addresses")) }
}

fn page_map(_: &Canaries) -> Result<(), Failure> {
    const PAGE_BYTES: u64 = 4096;
    const FRAME: u64 = (1 << 55) - 1;
    let here = 0u64;
    let mut entry = [0; 8];
    let offset = (&raw const here as u64) / PAGE_BYTES * 8;
    fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, offset)?;
    if u64::from_ne_bytes(entry) & FRAME != 0 { Ok(()) } else { Err(held("zeros instead of addresses")) }
}

fn mounts(_: &Canaries) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let found = text.lines().any(|line| line.split(' ').nth(4) == Some("/sys"));
    if found { Ok(()) } else { Err(held("no such mount")) }
}

/// Opened and closed; nothing is written.
fn may_write(path: &str) -> Result<(), Failure> {
    fs::OpenOptions::new().write(true).open(path)?;
    Ok(())
}

/// In its own network, which ends with it.
fn forward(_: &Canaries) -> Result<(), Failure> {
    Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}
