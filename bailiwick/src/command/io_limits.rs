//! `run --io-…`: what a program may ask of disks.

use anyhow::{Context, Result, bail};
use contracts::process_manager::v1 as pb;

use crate::{args::Run, units};

/// Every disk.
const ALL: &str = "all";

pub(super) fn weight(args: &Run) -> Result<u32> {
    match args.io_weight {
        Some(0) => bail!("--io-weight 0: 1 to 10000 are allowed"),
        given => Ok(given.unwrap_or(0)),
    }
}

/// One entry for each place, in the order in which they were named.
pub(super) fn parse(args: &Run) -> Result<Vec<pb::IoLimit>> {
    type Set = fn(&mut pb::IoLimit) -> &mut u64;
    let options: [(&str, &[String], bool, Set); 4] = [
        ("--io-read", &args.io_read, true, |limit| &mut limit.read_bytes),
        ("--io-write", &args.io_write, true, |limit| &mut limit.write_bytes),
        ("--io-read-ops", &args.io_read_ops, false, |limit| &mut limit.read_operations),
        ("--io-write-ops", &args.io_write_ops, false, |limit| &mut limit.write_operations),
    ];
    let mut limits: Vec<pb::IoLimit> = Vec::new();
    for (option, given, is_size, set) in options {
        for text in given {
            let (place, number) = split(text, is_size).with_context(|| format!("{option} {text:?}"))?;
            let known = limits.iter().position(|limit| limit.place == place);
            let limit = match known.and_then(|at| limits.get_mut(at)) {
                Some(limit) => limit,
                None => limits.push_mut(pb::IoLimit { place: place.clone(), ..pb::IoLimit::default() }),
            };
            if std::mem::replace(set(limit), number) != 0 {
                bail!("{option} is given twice for {place}");
            }
        }
    }
    Ok(limits)
}

/// Links are followed here, where it is known what the user sees.
fn split(text: &str, is_size: bool) -> Result<(String, u64)> {
    let (place, number) = match text.rsplit_once('=') {
        Some((path, number)) => {
            let path = std::fs::canonicalize(path).with_context(|| format!("finding {path:?}"))?;
            let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned();
            (path, number)
        }
        None => (ALL.to_owned(), text),
    };
    let number = if is_size { units::parse_size(number)? } else { number.parse().context("no number")? };
    if number == 0 {
        bail!("0 would be no limit");
    }
    Ok((place, number))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn limits(options: &[&str]) -> Result<Vec<pb::IoLimit>> {
        let words = ["bailiwick", "run"].iter().chain(options).chain(&["--", "true"]);
        match Cli::parse_from(words).command {
            Command::Run(args) => parse(&args),
            _ => panic!("no run"),
        }
    }

    #[test]
    fn numbers_of_one_place_go_together() {
        let found =
            limits(&["--io-read", "10M", "--io-write", "/usr=1K", "--io-read-ops", "/usr=7"]).unwrap();
        let usr = std::fs::canonicalize("/usr").unwrap().to_str().unwrap().to_owned();
        let all = pb::IoLimit { place: "all".to_owned(), read_bytes: 10 << 20, ..Default::default() };
        let one = pb::IoLimit { place: usr, write_bytes: 1024, read_operations: 7, ..Default::default() };
        assert_eq!(found, [all, one]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for options in [
            ["--io-read", "0"],
            ["--io-read", "/usr="],
            ["--io-write", "much"],
            ["--io-write-ops", "1K"],
            ["--io-read", "/no/such/place=1M"],
        ] {
            assert!(limits(&options).is_err(), "{options:?}");
        }
        assert!(limits(&["--io-read", "1M", "--io-read", "2M"]).is_err());
    }
}
