//! The trivial service that every supervisor runs in `bench services`: says that it is there, then waits to be killed.
//!
//! Arguments: socket and name. Without them, as runit and s6 start it, both follow from the working folder: its name, and
//! `here.sock` in the folder two above. It ends when the bench has gone, so that none is left behind.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixDatagram, UnixStream},
    path::PathBuf,
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
    let mut bench = UnixStream::connect(socket)?;
    if let Some(notify) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", notify)?;
    }
    bench.write_all(name.as_bytes())?;
    bench.write_all(b"\n")?;
    // Nobody writes: this ends with the bench, or not at all.
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
