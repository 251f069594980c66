//! A part of the house: the child of a launch that goes on in its launcher's own code.
//!
//! Who executes the launcher's image anew pays for it each time: a large file mapped, tens of thousands of addresses
//! moved, a command line read. A part has all of that from its launcher, whose pages it shares.

use std::{convert::Infallible, io};

use super::{Prepared, watch::Watch};
use crate::{
    inherited,
    plan::CAPABILITIES_UNTOUCHED,
    process::forbid_inspection,
    sys::{self, close_all_but_numbers},
};

/// Goes on as the part that the arguments name; what it returns, the process ends with. It finds the descriptors that the
/// plan placed and no other of the launcher's.
pub type Part = fn(&[String]) -> u8;

/// What a launcher has of the house.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub part: Part,
    /// For programs whose init answers calls.
    pub watch: Watch,
}

/// What a plan's arguments call it, for who reads `ps`.
pub(super) fn name(arguments: &[String]) -> &str {
    arguments.last().map_or("part", String::as_str)
}

/// Does what `execve` does for an image, then becomes the part. Comes back only while the launcher can be told.
pub(super) fn go_on(prepared: &Prepared<'_>, part: Part) -> io::Result<Infallible> {
    // It is a copy of the launcher's memory, and its program may have the same uid.
    forbid_inspection()?;
    let plan = prepared.plan;
    // Without no_new_privs they were left to load the filter with, and no exec comes that takes them.
    if prepared.effective.caps && plan.capabilities_kept != CAPABILITIES_UNTOUCHED {
        let kept = plan.capabilities_kept & sys::effective_capabilities()?;
        sys::set_capabilities(kept, 0)?;
    }
    // As every image of the house has it from its runtime: a peer that has gone is an error and not the end.
    sys::ignore_broken_pipes()?;
    let names = plan.name_server.map(|first| [first, first.saturating_add(1)]);
    let targets = plan.descriptors.iter().map(|descriptor| descriptor.target);
    let mut placed: Vec<u32> = targets.chain(names.into_iter().flatten()).chain(plan.datagrams).collect();
    inherited::start_over();
    // The channel is among what it closes, by which the launcher knows that the part runs.
    close_all_but_numbers(&mut placed)?;
    sys::exit_now(i32::from(part(&plan.arguments)))
}
