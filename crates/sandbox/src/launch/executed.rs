//! One more process where a program runs already: whoever asks chooses command, environment, working directory and standard
//! streams, and no right. It is forked by the program's init, so nobody enters from outside.
//!
//! It says why nothing runs where its errors go, and ends as a shell would: 127 if there is no such command, else 126.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::child::{
    At, FAILED, Failure, Image, Start, become_image, enter_directory, open_path, tie_to_parent,
};
use super::init::Asked;
use super::{Prepared, Step};
use crate::fdpass::Channel;
use crate::sys;

pub(super) const NOT_EXECUTABLE: i32 = 126;
/// Where a command is looked for by one that was given no `PATH`: what shells take then.
const PATH_USUALLY: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn become_it(
    prepared: &Prepared<'_>,
    channel: &Channel,
    shown: Option<&Channel>,
    asked: &Asked,
) -> ! {
    let Err(failure) = carry_out(prepared, channel, shown, asked);
    complain(asked, failure.step.name(), &io::Error::from_raw_os_error(failure.errno));
    let is_absent = failure.errno == Errno::NOENT.raw_os_error();
    sys::exit_now(if is_absent { FAILED } else { NOT_EXECUTABLE })
}

fn carry_out(
    prepared: &Prepared<'_>,
    channel: &Channel,
    shown: Option<&Channel>,
    asked: &Asked,
) -> Result<Infallible, Failure> {
    let Asked { execution, streams } = asked;
    // It stands behind the init from here on.
    tie_to_parent(prepared, channel)?;
    // Fails only for a leader of a group, which a fork is not.
    let _ = rustix::process::setsid();
    if let Some(folder) = &execution.working_directory {
        enter_directory(folder).at(Step::Directory)?;
    }
    let environment = environment(prepared, asked).at(Step::Execute)?;
    let image = find(&environment, execution.arguments.first().map_or("", String::as_str)).at(Step::Open)?;
    let [input, output, error] = streams;
    let kept = [(input, 0), (output, 1), (error, 2)].map(|(fd, target)| Ok((fd.try_clone()?, target)));
    let kept = kept.into_iter().collect::<io::Result<Vec<_>>>().at(Step::Descriptors)?;
    let start = Start {
        arguments: &execution.arguments,
        environment: Some(environment),
        own_pid: None,
        kept: &kept,
        null: input,
        terminal: execution.terminal,
        shown,
    };
    become_image(prepared, channel, image, start)
}

/// The program's, with what was asked for in its place.
fn environment(prepared: &Prepared<'_>, asked: &Asked) -> io::Result<Vec<CString>> {
    let mut all = prepared.environment.clone();
    for (name, value) in &asked.execution.environment {
        let start = format!("{name}=");
        all.retain(|known| !known.as_bytes().starts_with(start.as_bytes()));
        all.push(CString::new(format!("{start}{value}"))?);
    }
    Ok(all)
}

/// As a shell finds it, in the sandbox.
fn find(environment: &[CString], name: &str) -> io::Result<Image> {
    if name.contains('/') {
        return open_path(name);
    }
    let path = environment.iter().find_map(|known| known.to_str().ok()?.strip_prefix("PATH="));
    let mut why = Errno::NOENT.into();
    for folder in path.unwrap_or(PATH_USUALLY).split(':').filter(|folder| folder.starts_with('/')) {
        let file = format!("{}/{name}", folder.trim_end_matches('/'));
        let opened = rustix::fs::accessat(CWD, &file, Access::EXEC_OK, AtFlags::EACCESS);
        match opened.map_err(io::Error::from).and_then(|()| open_path(&file)) {
            Ok(image) => return Ok(image),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Another folder may have one that can be executed.
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// One line for whoever asked.
pub(super) fn complain(asked: &Asked, step: &str, cause: &io::Error) {
    let name = asked.execution.arguments.first().map_or("", String::as_str);
    let [_, _, error] = &asked.streams;
    let line = format!("bailiwick: {name}: {step} failed: {cause}\n");
    if let Ok(error) = error.as_fd().try_clone_to_owned() {
        let _ = std::fs::File::from(error).write_all(line.as_bytes());
    }
}
