//! Files of the user that were not granted.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::{Attempt, Canaries, Failure, held, same};
use crate::guard::Guard::{Landlock, Mountns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("read_a_file", "reads a file of the user", &[Mountns, Landlock], read),
    Attempt::new("write_to_a_file", "appends to a file of the user", &[Mountns, Landlock], write),
    Attempt::new("delete_a_file", "deletes a file of the user", &[Mountns, Landlock], delete),
    Attempt::new("change_the_mode", "opens a file of the user to everybody", &[Mountns], change_mode),
    Attempt::new("look_at_a_file", "learns that a file of the user exists", &[Mountns], look),
    Attempt::new(
        "follow_a_link",
        "reads a file of the user through a link of its own",
        &[Mountns, Landlock],
        follow_a_link,
    ),
];

fn read(canaries: &Canaries) -> Result<(), Failure> {
    same(&fs::read(canaries.file("secret")?)?, canaries.get("secret")?)
}

fn write(canaries: &Canaries) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new().append(true).open(canaries.file("written")?)?;
    Ok(file.write_all(b"x")?)
}

fn delete(canaries: &Canaries) -> Result<(), Failure> {
    Ok(fs::remove_file(canaries.file("victim")?)?)
}

fn change_mode(canaries: &Canaries) -> Result<(), Failure> {
    Ok(fs::set_permissions(canaries.file("mode")?, PermissionsExt::from_mode(0o666))?)
}

fn look(canaries: &Canaries) -> Result<(), Failure> {
    let size = fs::symlink_metadata(canaries.file("secret")?)?.len();
    if size == canaries.get("secret")?.len() as u64 { Ok(()) } else { Err(held("another file")) }
}

fn follow_a_link(canaries: &Canaries) -> Result<(), Failure> {
    let link = format!("/tmp/bailiwick-link-{}", std::process::id());
    symlink(canaries.file("secret")?, &link)?;
    let read = fs::read(&link);
    fs::remove_file(&link)?;
    same(&read?, canaries.get("secret")?)
}
