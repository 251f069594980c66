//! The keeper's tests: `keeper` is a keeper, `supervisor` what it starts. The latter takes one command per line of its
//! standard input, which it shares with those before and after it, and prints each reply.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use sandbox::fdpass::Channel;
use sandbox::keeper_protocol::{Client, Reply, Request};
use sandbox::{
    Command, Executable, Execution, Features, Forks, Guard, GuardSet, Parts, Plan, Resource, Rlimit,
    StartToken,
};
use supervisor::keeper::{KEEPER_FD, KeeperConfig, PROGRAMS_CHANNEL, run};

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    let result = match role.as_str() {
        "keeper" => keeper(),
        "supervisor" => supervise(),
        "dies" => Ok(()),
        _ => Err(io::Error::other("usage: keeper|supervisor|dies")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

fn keeper() -> io::Result<()> {
    let role = std::env::args().nth(2).unwrap_or_else(|| "supervisor".to_owned());
    let ending = run(KeeperConfig {
        image: File::open("/proc/self/exe")?.into(),
        arguments: vec!["supervisor".to_owned(), role],
        environment: Vec::new(),
        streams: [
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ],
        features: Features::detect(),
        cgroup: format!("test-keeper-{}", std::process::id()),
        parts: Parts { part: |_| 1, watch: |_| Err(io::ErrorKind::Unsupported.into()) },
    })?;
    say(&format!("ending {ending:?}"));
    Ok(())
}

fn say(text: &str) {
    println!("{text}");
    let _ = io::stdout().flush();
}

/// One line, not a byte more: the rest is for whoever comes after.
fn read_line() -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte {
            [b'\n'] => return Ok(Some(String::from_utf8_lossy(&line).into_owned())),
            [other] => line.push(other),
        }
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

/// A shell that runs the text, outside of any sandbox.
fn shell(text: &str) -> Plan {
    let mut plan = Plan::trusted("shell", Executable::Path("/bin/sh".to_owned()));
    plan.arguments = vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()];
    plan.environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    plan
}

fn command(text: &str) -> Command {
    let arguments = ["sh", "-c", text].map(str::to_owned).to_vec();
    Command { path: "/bin/sh".to_owned(), arguments, may_fail: false }
}

fn supervise() -> io::Result<()> {
    let own: OwnedFd = sandbox::inherited::adopt_descriptor(KEEPER_FD as i32)?;
    let mut clients = vec![Client::new(Channel::from(own))];
    say(&format!("supervisor {}", std::process::id()));
    let mut current = 0;
    // As every supervisor has others.
    let mut runs = u64::from(std::process::id()) << 32;
    let mut tokens = Vec::new();
    while let Some(line) = read_line()? {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let Some(client) = clients.get_mut(current) else { return Err(io::Error::other("no client")) };
        let mut ask = |request: &Request, fds: &[OwnedFd]| {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            client.send(request, &fds).map_err(io::Error::other)?;
            reply(client)
        };
        match words.as_slice() {
            ["hello", nonce] => {
                client.hello(number(nonce)?).map_err(io::Error::other)?;
                say("greeted");
            }
            ["launch" | "behind" | "loose" | "large" | "daemon" | "after", id, text] => {
                let mut plan = shell(text);
                plan.init = line.starts_with("behind") || line.starts_with("daemon");
                if line.starts_with("daemon") {
                    plan.forks = Some(Forks::default());
                    // Outside of any sandbox: found by the number that the kernel gave.
                    plan.commands = ["exit 3", "exec sleep 60", "exec sleep 60"].map(command).to_vec();
                }
                if line.starts_with("after") {
                    // The text is what comes before; the program sleeps.
                    plan = shell("exec sleep 60");
                    plan.init = true;
                    plan.commands = vec![command(text)];
                    plan.before = 1;
                }
                if line.starts_with("loose") {
                    plan.disabled = GuardSet::of(&[Guard::Cgroup]);
                }
                if line.starts_with("large") {
                    plan.environment.push(("LARGE".to_owned(), "x".repeat(100_000)));
                }
                plan.rlimits = vec![Rlimit { resource: Resource::CoreBytes, soft: 0, hard: 0 }];
                client.launch(number(id)?, &plan, Vec::new(), &[]).map_err(io::Error::other)?;
                reply(client)?;
            }
            ["broken", id] => {
                let mut plan = shell("exit 0");
                plan.executable = Executable::Path("/does/not/exist".to_owned());
                client.launch(number(id)?, &plan, Vec::new(), &[]).map_err(io::Error::other)?;
                reply(client)?;
            }
            ["signal", id, signal] => {
                let signal = number(signal)? as i32;
                ask(&Request::Signal { id: number(id)?, signal }, &[])?;
            }
            ["run", id, place] => {
                let command = number(place)? as u8;
                runs += 1;
                ask(&Request::Run { id: number(id)?, command, run: runs }, &[])?;
            }
            ["execute", id, text] => {
                let arguments = ["sh", "-c", text].map(str::to_owned).to_vec();
                let execution = Execution { arguments, ..Execution::default() };
                let execution = execution.encode().map_err(io::Error::other)?;
                let streams = ["/dev/null", "/dev/null", "/dev/null"].map(File::open);
                let mut fds: Vec<OwnedFd> =
                    streams.into_iter().map(|file| file.map(OwnedFd::from)).collect::<io::Result<_>>()?;
                let (token, theirs) = StartToken::new()?;
                fds.push(theirs);
                tokens.push(token);
                runs += 1;
                ask(&Request::Execute { id: number(id)?, run: runs, execution }, &fds)?;
            }
            // The last one that was asked for.
            ["give-up"] => {
                let token: Option<StartToken> = tokens.pop();
                say(&format!("withdrawn {}", token.is_some_and(|token| token.withdraw())));
            }
            ["end-executed", id, run] => {
                ask(&Request::EndExecuted { id: number(id)?, run: number(run)? }, &[])?;
            }
            ["end", id, place] => {
                let command = number(place)? as u8;
                ask(&Request::EndCommand { id: number(id)?, command }, &[])?;
            }
            ["list"] => ask(&Request::List(0), &[])?,
            ["ack", id] => ask(&Request::Ack(number(id)?), &[])?,
            ["measure", id] => ask(&Request::Measure(number(id)?), &[])?,
            ["store", name] => {
                ask(&Request::Store((*name).to_owned()), &[File::open("/etc/passwd")?.into()])?
            }
            ["fetch", name] => ask(&Request::Fetch((*name).to_owned()), &[])?,
            ["shutdown"] => ask(&Request::Shutdown, &[])?,
            ["wait"] => {
                let (notice, _) = client.receive().map_err(io::Error::other)?;
                say(&format!("{notice:?}"));
            }
            ["programs"] => {
                client.send(&Request::Fetch(PROGRAMS_CHANNEL.to_owned()), &[]).map_err(io::Error::other)?;
                let (_, mut fds) = client.receive().map_err(io::Error::other)?;
                let fd = fds.pop().ok_or_else(|| io::Error::other("no channel"))?;
                clients.push(Client::new(Channel::from(fd)));
                current = 1;
                say("switched");
            }
            ["quit"] => return Ok(()),
            _ => say("what"),
        }
    }
    Ok(())
}

/// Prints notices until the answer, and that.
fn reply(client: &mut Client) -> io::Result<()> {
    loop {
        let (reply, fds) = client.receive().map_err(io::Error::other)?;
        say(&format!("{reply:?} fds {}", fds.len()));
        if !matches!(
            reply,
            Reply::Exited { .. } | Reply::Settled { .. } | Reply::Done { .. } | Reply::ShutdownRequested
        ) {
            return Ok(());
        }
    }
}
