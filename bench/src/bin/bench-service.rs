//! The trivial service that every supervisor runs in `bench services`: says that it is there, then waits to be killed.
//!
//! Arguments: socket and name, and how many mebibytes to write to its standard output (`bench output`): it says that it is
//! there once it has written the first ones, which are not counted, and as `NAME-done` once it has written all.
//! Without arguments, as runit and s6 start it, both follow from the working folder: its name, and
//! `here.sock` in the folder two above. It ends when the bench has gone, so that none is left behind.

use std::{
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-service: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<()> {
    let (socket, name) = place()?;
    if let Some(mebibytes) = std::env::args().nth(3) {
        let mebibytes = mebibytes.parse().map_err(std::io::Error::other)?;
        let lines = lines();
        write(&lines, FIRST_MEBIBYTES)?;
        let begun = say(&socket, &name)?;
        write(&lines, mebibytes)?;
        drop(begun);
        return wait(say(&socket, &format!("{name}-done"))?);
    }
    let bench = say(&socket, &name)?;
    if let Some(notify) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", notify)?;
    }
    wait(bench)
}

/// Bytes written at once: what a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;
/// Whatever waits for a first reader has given up by then, and every file has been cut once.
const FIRST_MEBIBYTES: usize = 64;

/// Lines of 100 bytes, a piece of them.
fn lines() -> Vec<u8> {
    let line = [&[b'x'; 99][..], b"\n"].concat();
    line.iter().copied().cycle().take(PIECE_BYTES).collect()
}

fn write(lines: &[u8], mebibytes: usize) -> std::io::Result<()> {
    // Past the buffer that cuts at lines.
    let mut out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    (0..mebibytes * (1024 * 1024 / PIECE_BYTES)).try_for_each(|_| out.write_all(lines))
}

fn say(socket: &Path, name: &str) -> std::io::Result<UnixStream> {
    let mut bench = UnixStream::connect(socket)?;
    bench.write_all(name.as_bytes())?;
    bench.write_all(b"\n")?;
    Ok(bench)
}

/// Nobody writes: this ends with the bench, or not at all.
fn wait(mut bench: UnixStream) -> std::io::Result<()> {
    bench.read_exact(&mut [0])
}

fn place() -> std::io::Result<(PathBuf, String)> {
    let mut words = std::env::args().skip(1);
    if let (Some(socket), Some(name)) = (words.next(), words.next()) {
        return Ok((socket.into(), name));
    }
    let folder = std::env::current_dir()?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((folder.join("../../here.sock"), name))
}
