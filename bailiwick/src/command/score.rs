//! `sandbox score` and `run --score`: what a manifest or a command line leaves open. Works on what is named alone.

use std::{net::IpAddr, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use sandbox::{
    Guard,
    score::{Names, Score, Subject, User, score},
};
use supervisor::manifest::{ListenAddress, NetworkSwitch, ServiceManifest, parse};

use super::{checkpoint::read_text, process::parse_grant, rootfs};
use crate::{
    args::{Output, Run},
    exit::{DIFFERS, Failure, USAGE},
    output,
};

/// Bytes of a manifest that is read.
const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

pub fn manifest(output: Output, file: &Path, max: Option<f32>) -> Result<ExitCode> {
    if max.is_some_and(|max| !(0.0..=10.0).contains(&max)) {
        return Err(Failure::new(USAGE, "--max is 0.0 to 10.0").into());
    }
    let text = read_text(file, MANIFEST_BYTES_MAX)?;
    let loaded = parse(&file.display().to_string(), &text).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::new(USAGE, faults.join("\n"))
    })?;
    let rated = score(&of_manifest(&loaded.manifest)?);
    show(output, &rated)?;
    let allowed = max.map_or(f32::INFINITY, |max| max * 100.0);
    // Both are small whole numbers or hundredths of them.
    if f64::from(rated.total_hundredths) > f64::from(allowed.round()) {
        eprintln!("bailiwick: the total is higher than allowed");
        return Ok(ExitCode::from(DIFFERS));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn flags(output: Output, args: &Run) -> Result<ExitCode> {
    show(output, &score(&of_flags(args)?))?;
    Ok(ExitCode::SUCCESS)
}

fn of_manifest(manifest: &ServiceManifest) -> Result<Subject> {
    let Some(program) = &manifest.program else {
        bail!(
            "{} is a service of Bailiwick itself: it has no [program], and its sandbox is not its manifest's to say",
            manifest.service.name
        );
    };
    let paths = |writable| {
        let granted = program.fs.iter().filter(move |grant| grant.writable == writable);
        granted.map(|grant| grant.path.clone())
    };
    // Those below /run are the program's own.
    let folders = program.folders.iter().map(|folder| folder.path.clone());
    let of_host = folders.filter(|path| !path.starts_with("/run/"));
    let sandbox = &manifest.sandbox;
    Ok(Subject {
        names: Names::Manifest,
        writable: paths(true).chain(of_host).collect(),
        readable: paths(false).collect(),
        host_network: sandbox.network == NetworkSwitch::Host,
        egress: manifest.egress.as_ref().map(|egress| egress.allow.clone()).unwrap_or_default(),
        proxy: manifest.egress.as_ref().is_some_and(|egress| egress.proxy),
        listens: manifest.sockets.iter().map(|socket| listens(&socket.listen)).collect(),
        user: program.user.clone().map_or(User::Mapped, User::Host),
        privileges: program.privileges.clone(),
        permissions: manifest.permissions().to_vec(),
        secrets: program.secrets.iter().map(|secret| secret.name.clone()).collect(),
        memory_limited: manifest.resources.memory_mb.is_some(),
        // Every service has a number of processes, a size of its `/tmp` and a share of the processor.
        processes_limited: true,
        cpu_limited: true,
        disk_limited: true,
        io_limited: manifest.resources.io_weight.is_some() || !manifest.resources.io.is_empty(),
        watched: sandbox.watch_refusals,
        own_root: program.container().is_some(),
        pinned: program.image.starts_with("blake3:") || program.container().is_some(),
        ..Subject::default()
    })
}

fn listens(address: &ListenAddress) -> (String, bool) {
    let far = |ip: IpAddr| !ip.is_loopback();
    let far = match address {
        ListenAddress::Tcp(address) | ListenAddress::Udp(address) => far(address.ip()),
        ListenAddress::Unix(_) | ListenAddress::UnixDatagram(_) => false,
    };
    (address.to_string(), far)
}

fn of_flags(args: &Run) -> Result<Subject> {
    let mut subject = Subject {
        names: Names::Flags,
        own_root: args.image.is_some() || args.rootfs.is_some(),
        secrets: args.secrets.iter().filter_map(|text| Some(text.split_once('=')?.0.to_owned())).collect(),
        // Without a flag the node's own limits hold.
        memory_limited: true,
        processes_limited: true,
        disk_limited: true,
        io_limited: args.io_weight.is_some()
            || [&args.io_read, &args.io_write, &args.io_read_ops, &args.io_write_ops]
                .into_iter()
                .any(|limits| !limits.is_empty()),
        egress: args.egress.clone(),
        proxy: args.proxy,
        cpu_limited: args.cpus.is_some() || args.cpu_time.is_some(),
        watched: !args.no_notice,
        // The node keeps what runs under its hash.
        pinned: true,
        ..Subject::default()
    };
    for text in &args.paths {
        let grant = parse_grant(text)?;
        match (grant.writable, grant.copy_on_write) {
            (true, _) => subject.writable.push(grant.path),
            (false, true) => subject.copied.push(grant.path),
            (false, false) => subject.readable.push(grant.path),
        }
    }
    if let Some(text) = &args.rootfs {
        let (folder, copied) = rootfs::split(text);
        if copied { &mut subject.copied } else { &mut subject.readable }.push(folder.to_owned());
    }
    for name in &args.disable {
        match Guard::parse(name) {
            Some(guard) => subject.guards_off.push(guard),
            None => bail!("there is no defence {name:?}"),
        }
    }
    Ok(subject)
}

fn tenths(hundredths: u32) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn show(output: Output, rated: &Score) -> Result<()> {
    output::show(output, rated, || {
        let row = |line: &sandbox::score::Line| {
            let exposure = tenths(line.exposure_hundredths);
            vec![exposure, line.topic.to_owned(), line.line.clone(), line.reason.clone(), line.lower.clone()]
        };
        let rows: Vec<Vec<String>> = rated.lines.iter().map(row).collect();
        let total = format!("total {} of 10: {}\n", tenths(rated.total_hundredths), rated.level);
        output::table(&["EXPOSURE", "TOPIC", "LINE", "BECAUSE", "LOWER BY"], &rows) + &total
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rated(program: &str, rest: &str) -> Score {
        let text = format!(
            "version = 1\n[service]\nname = \"web\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\n\
             {program}\n{rest}"
        );
        score(&of_manifest(&parse("web.toml", &text).unwrap().manifest).unwrap())
    }

    fn has(score: &Score, line: &str) -> bool {
        score.lines.iter().any(|one| one.line.contains(line) && one.exposure_hundredths > 0)
    }

    #[test]
    fn each_line_of_a_manifest_that_opens_something_counts() {
        let plain = rated("image = \"/usr/bin/web\"", "");
        assert!(
            has(&plain, "program.image is a path") && has(&plain, "memory_mb is not given"),
            "{plain:#?}"
        );
        for (program, rest, line) in [
            ("fs = [\"/srv:rw\"]", "", "/srv:rw"),
            ("fs = [\"/home\"]", "", "/home"),
            ("", "[sandbox]\nnetwork = \"host\"", "sandbox.network"),
            ("", "[egress]\nallow = [\"api.example.com\"]", "api.example.com"),
            ("", "[egress]\nallow = [\"192.0.2.1:443\"]\nproxy = true", "egress.proxy"),
            ("user = \"root\"", "", "program.user"),
            ("user = \"web\"\nprivileges = [\"setuid\"]", "", "program.privileges"),
            ("folders = [{ path = \"/var/lib/web\" }]", "", "/var/lib/web:rw"),
            ("secrets = [{ name = \"key\", path = \"/etc/key\" }]", "", "program.secrets"),
            ("", "[[sockets]]\nname = \"http\"\nlisten = \"tcp:0.0.0.0:80\"", "tcp:0.0.0.0:80"),
        ] {
            let more = rated(&format!("image = \"/usr/bin/web\"\n{program}"), rest);
            assert!(has(&more, line), "{line}: {more:#?}");
            assert!(more.total_hundredths > plain.total_hundredths, "{line}");
        }
        let less = rated(
            "image = \"/usr/bin/web\"",
            "[resources]\nmemory_mb = 64\nio_weight = 100\n[sandbox]\nwatch_refusals = true",
        );
        assert!(less.total_hundredths < plain.total_hundredths);
    }
}
