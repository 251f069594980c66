//! What `prove` and the tests run as a job: honest work, and what a job must not do. Static, so it needs nothing beside it.

use std::{
    fs, io,
    process::{Command, ExitCode},
    time::{SystemTime, UNIX_EPOCH},
};

const INPUT: &str = "/in/text";
const OUTPUT: &str = "/out/result";
/// What an attempt writes to files that it has removed: together far more than its limit, none of them alone.
const REMOVED_FILES: usize = 32;
const REMOVED_BYTES: usize = 32 * 1024;

pub fn main(name: &str) -> ExitCode {
    match attempt(name).and_then(|result| fs::write(OUTPUT, result)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What goes to the output.
fn attempt(name: &str) -> io::Result<String> {
    match name {
        "count" => {
            let text = fs::read_to_string(INPUT)?;
            Ok(format!("{} lines, {} words\n", text.lines().count(), text.split_whitespace().count()))
        }
        "clock" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
            Ok(format!("{}\n", now.as_nanos()))
        }
        "random" => {
            let mut bytes = [0; 8];
            // The crate `getrandom` finds the call in no static program.
            kit::random::fill(&mut bytes)?;
            Ok(format!("{}\n", u64::from_le_bytes(bytes)))
        }
        // Nothing stops it: the kernel writes the clock's time down with every file.
        "file-time" => {
            fs::write("/out/stamp", "x")?;
            let written = fs::metadata("/out/stamp")?.modified()?;
            let written = written.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
            Ok(format!("{}\n", written.as_nanos()))
        }
        "network" => std::net::UdpSocket::bind("127.0.0.1:0").map(|_| String::new()),
        "program" => Command::new("/job/program").spawn().map(|_| String::new()),
        "environment" => Ok(format!("{}\n", std::env::vars_os().count())),
        "undeclared" => {
            let paths = ["/etc/passwd", "/proc/self/stat", "/dev/urandom", "/dev/null", "/in/other"];
            let opened = paths.iter().filter(|path| fs::File::open(path).is_ok());
            Ok(format!("{:?}\n", opened.collect::<Vec<_>>()))
        }
        "input" => fs::write(INPUT, "x").map(|()| String::new()),
        "nothing" => Err(io::Error::other("it gives up")),
        "memory" => {
            let bytes = vec![1_u8; 1 << 30];
            Ok(format!("{}\n", bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()))
        }
        // Each is small, none is there to be seen, and all are open.
        "removed" => {
            let mut open = Vec::new();
            for number in 0..REMOVED_FILES {
                let path = format!("/out/removed-{number}");
                let mut file = fs::File::create(&path)?;
                fs::remove_file(&path)?;
                io::Write::write_all(&mut file, &[1; REMOVED_BYTES])?;
                open.push(file);
            }
            Ok(String::new())
        }
        "large" => Ok("x".repeat(1 << 20)),
        "forever" => loop {
            std::hint::spin_loop();
        },
        other => Err(io::Error::other(format!("there is no attempt {other:?}"))),
    }
}
