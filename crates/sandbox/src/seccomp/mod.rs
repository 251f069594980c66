//! System call filters: profiles are data (`profiles.rs`), `assemble.rs` makes the kernel's program of them.

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
compile_error!("the system call profiles are written for x86_64");

mod assemble;
mod handed;
mod job;
mod names;
mod profiles;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

pub use assemble::{INSTRUCTIONS_MAX, assemble};
pub use names::call_name;
pub use profiles::rules;

/// The one niceness that a thread of a service may give itself.
pub const NICENESS_BEHIND: u32 = 10;

/// Which list of calls a process lives with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Profile {
    /// A static Rust service on tokio: what it needs, anything else kills it.
    #[n(0)]
    Service,
    /// The key boundary: a handful, anything else kills it.
    #[n(1)]
    Boundary,
    /// An ordinary program: what reaches beyond its process is refused, the rest is allowed.
    #[n(2)]
    Program,
    /// A deterministic job: what computes on its own files; anything else is shown, and ends it.
    #[n(3)]
    Job,
}

/// A call that can be shown to a listener before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum NotifyCall {
    /// open, openat, openat2, creat.
    #[n(0)]
    Open,
    #[n(1)]
    Connect,
    /// execve. `execveat` is how the launcher itself starts the image and is not shown.
    #[n(2)]
    Exec,
    /// unlink, rename, mkdir, link and their like.
    #[n(3)]
    ChangeName,
    #[n(4)]
    Bind,
    /// sendto: a datagram names its address there.
    #[n(5)]
    SendTo,
    /// socket, of IPv4 and IPv6. Whoever shows it is handed sockets of another network, which the filter then guards: see
    /// `handed.rs`.
    #[n(6)]
    Socket,
    #[n(7)]
    Listen,
}

impl NotifyCall {
    pub const ALL: [NotifyCall; 8] = [
        NotifyCall::Open,
        NotifyCall::Connect,
        NotifyCall::Exec,
        NotifyCall::ChangeName,
        NotifyCall::Bind,
        NotifyCall::SendTo,
        NotifyCall::Socket,
        NotifyCall::Listen,
    ];

    fn numbers(self) -> &'static [i64] {
        match self {
            NotifyCall::Open => &[libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_creat],
            NotifyCall::Connect => &[libc::SYS_connect],
            NotifyCall::Exec => &[libc::SYS_execve],
            NotifyCall::ChangeName => &[
                libc::SYS_unlink,
                libc::SYS_unlinkat,
                libc::SYS_rename,
                libc::SYS_renameat,
                libc::SYS_renameat2,
                libc::SYS_mkdir,
                libc::SYS_mkdirat,
                libc::SYS_rmdir,
                libc::SYS_link,
                libc::SYS_linkat,
                libc::SYS_symlink,
                libc::SYS_symlinkat,
            ],
            NotifyCall::Bind => &[libc::SYS_bind],
            NotifyCall::SendTo => &[libc::SYS_sendto],
            // Shown by family, see `assemble.rs`.
            NotifyCall::Socket => &[],
            NotifyCall::Listen => &[libc::SYS_listen],
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Errno(i32),
    Kill,
    Notify,
}

/// A condition on the low 32 bits of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Equals {
        argument: u8,
        value: u32,
    },
    /// Any of these bits is set.
    AnyBit {
        argument: u8,
        bits: u32,
    },
    /// Every one of these bits is set.
    AllBits {
        argument: u8,
        bits: u32,
    },
    /// Two arguments, each with its value.
    BothEqual {
        first: (u8, u32),
        second: (u8, u32),
    },
}

/// One line of a profile. The first that matches decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub calls: &'static [i64],
    pub when: When,
    pub action: Action,
    pub why: &'static str,
}
