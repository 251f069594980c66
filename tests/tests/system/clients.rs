//! Ordinary clients, unchanged, through the way out to ordinary servers on a host of their own: each goes out by one rule, not without it,
//! and what refused it is named.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use system_tests::within;

use crate::egress_names::Site;

const LIMIT: Duration = Duration::from_secs(60);
/// What `web.test` leads to, where the servers are.
const HOST: &str = "192.0.2.12";
/// Where programs are found without a user's own additions.
const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Servers, and what clients are shown of the host besides its programs.
struct Servers {
    site: Site,
    folder: tempfile::TempDir,
    running: Vec<(Child, &'static str)>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (server, signal) in &mut self.running {
            let _ = Command::new("kill").args([*signal, &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

/// None, with the reason on the output, where one is not installed.
fn installed(programs: &[(&str, &str)]) -> Option<()> {
    let missing = programs.iter().find(|(program, _)| !Path::new(program).exists());
    if let Some((program, package)) = missing {
        println!("skipped: no {program} (apt-get install {package})");
    }
    missing.is_none().then_some(())
}

impl Servers {
    fn boot() -> Option<Self> {
        let site = Site::boot(None)?;
        let folder = tempfile::Builder::new().prefix("bwc").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("shown")).unwrap();
        Some(Self { site, folder, running: Vec::new() })
    }

    /// For servers alone.
    fn own(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Clients see it too.
    fn shown(&self, name: &str) -> PathBuf {
        self.folder.path().join("shown").join(name)
    }

    /// Starts a server on the other host and waits until it listens; `signal` ends it with everything below it.
    fn serve(&mut self, signal: &'static str, port: u16, words: &[&str]) {
        let (program, arguments) = words.split_first().unwrap();
        let output = || fs::File::options().create(true).append(true).open(self.own("servers.log")).unwrap();
        let mut command = self.site.at_neighbour(program);
        let command = command.args(arguments).stdin(Stdio::null()).stdout(output()).stderr(output());
        let mut server = command.spawn().unwrap();
        let listens = || {
            let output = self.site.at_neighbour("ss").args(["-Hltn", &format!("sport = :{port}")]).output();
            !output.unwrap().stdout.is_empty()
        };
        let ready = within(LIMIT, listens);
        if !ready {
            let _ = server.kill();
            let _ = server.wait();
            panic!("{program}: {}", fs::read_to_string(self.own("servers.log")).unwrap());
        }
        self.running.push((server, signal));
    }

    /// A program that was given these places.
    fn client(&self, places: &[&str], words: &[&str]) -> Output {
        let shown = self.folder.path().join("shown");
        let passwd = format!("{}:ro:/etc/passwd", self.shown("passwd").display());
        let mut all = vec![
            "run",
            "--fs",
            shown.to_str().unwrap(),
            "--fs",
            &passwd,
            "--env",
            PATH,
            "--env",
            "HOME=/tmp",
        ];
        places.iter().for_each(|place| all.extend(["--egress", place]));
        all.push("--");
        all.extend(words);
        self.site.node.run(&all)
    }

    /// Not without its rule, and with it; both are named. `place` is given to the client, `remote` is where it leads.
    fn goes_out_by_one_rule(&self, place: &str, remote: &str, words: &[&str], expected: &str) {
        let (node, name) = (&self.site.node, words[0]);
        let before = self.authorised().len();
        let refused = self.client(&[place], words);
        assert!(!refused.status.success(), "{name} went out without a rule: {refused:?}");
        let denied = node.log(&["PolicyDecision"]);
        let denied = denied.iter().rfind(|entry| entry["body"]["effect"] == "Deny");
        let Some(denied) = denied else { panic!("{name}: {refused:?}\n{}", node.ok(&["why", "last"])) };
        let why = node.ok(&["why", &denied["sequence"].to_string()]);
        assert!(why.contains("nothing-goes-out") && why.contains(remote), "{name}: {why}");
        assert_eq!(self.authorised().len(), before, "{name}");

        let rule = format!(
            "[[rule]]\nid = \"goes\"\nname = \"goes\"\npriority = 960\neffect = \"Allow\"\n[rule.condition]\nand = [\n\
             {{ action = {{ kind = \"connect\" }} }},\n\
             {{ resource = {{ exact = {{ type = \"network\", id = \"{remote}\" }} }} }},\n]\n"
        );
        node.ok(&["policy", "add", &node.file("goes.toml", rule)]);
        let output = self.client(&[place], words);
        let said = String::from_utf8_lossy(&output.stdout);
        let went = output.status.success() && said.contains(expected);
        assert!(went, "{name}: {output:?}\n{}", node.ok(&["why", "last"]));
        let entries = self.authorised();
        let [.., last] = entries.as_slice() else { panic!("{name}: no connection is on record") };
        assert!(entries.len() > before);
        let host = place.rsplit_once(':').unwrap().0;
        let expected: Value =
            if host.parse::<std::net::Ipv4Addr>().is_ok() { Value::Null } else { host.into() };
        assert_eq!((&last["body"]["remote"], &last["body"]["name"]), (&remote.into(), &expected), "{name}");
        let decisions = node.log(&["PolicyDecision"]);
        let before = |entry: &&Value| entry["sequence"].as_u64() < last["sequence"].as_u64();
        let decision = decisions.iter().rfind(before).unwrap();
        let why = node.run(&["why", &decision["sequence"].to_string()]);
        let why = String::from_utf8_lossy(&why.stderr);
        assert!(why.contains("rule goes allowed it"), "{name}: {why}");
        node.ok(&["policy", "remove", "goes"]);
    }

    fn authorised(&self) -> Vec<Value> {
        self.site.node.log(&["ConnectionAuthorize"])
    }

    /// From now on nothing goes out that no other rule lets out.
    fn shut(&self) {
        let rule = "[[rule]]\nid = \"nothing-goes-out\"\nname = \"nothing goes out\"\npriority = 950\neffect = \"Deny\"\n\
                    condition = { action = { kind = \"connect\" } }\n";
        let node = &self.site.node;
        node.ok(&["policy", "add", &node.file("shut.toml", rule)]);
        // A program has a name in there, as on a host where its user is known.
        fs::write(self.shown("passwd"), "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/tmp:/bin/sh\n").unwrap();
    }

    /// nginx with a certificate of its own for `web.test`; what it serves lies in `pages`.
    fn https(&mut self) {
        let (certificate, key) = (self.shown("ca.pem"), self.own("key.pem"));
        done(
            Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
                .args([
                    "-nodes",
                    "-days",
                    "30",
                    "-subj",
                    "/CN=web.test",
                    "-addext",
                    "subjectAltName=DNS:web.test",
                    "-keyout",
                    &key,
                    "-out",
                ])
                .arg(&certificate),
        );
        fs::create_dir(self.own("pages")).unwrap();
        fs::write(self.own("pages/page"), "a page\n").unwrap();
        let config = format!(
            "daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/nginx.log;\n\
             events {{ }}\n\
             http {{ access_log {0}/access.log; client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3;\n\
             uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;\n\
             server {{ listen {HOST}:443 ssl; ssl_certificate {1}; ssl_certificate_key {key}; root {0}/pages; index index.html; }} }}\n",
            self.folder.path().display(),
            certificate.display(),
        );
        fs::write(self.own("nginx.conf"), config).unwrap();
        let config = self.own("nginx.conf");
        self.serve("-TERM", 443, &["/usr/sbin/nginx", "-c", &config]);
    }
}

fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn clients_of_the_web_go_out_by_one_rule_each() {
    let tools = [
        ("/usr/sbin/nginx", "nginx-light"),
        ("/usr/bin/openssl", "openssl"),
        ("/usr/bin/curl", "curl"),
        ("/usr/bin/wget", "wget"),
        ("/usr/bin/git", "git"),
        ("/usr/bin/pip3", "python3-pip"),
        ("/usr/bin/ss", "iproute2"),
    ];
    if installed(&tools).is_none() {
        return;
    }
    let Some(mut servers) = Servers::boot() else { return };
    servers.https();
    servers.shut();
    let ca = servers.shown("ca.pem").to_str().unwrap().to_owned();
    let (place, remote) = ("web.test:443", format!("{HOST}:443"));
    let goes = |words: &[&str], expected: &str| servers.goes_out_by_one_rule(place, &remote, words, expected);
    goes(&["curl", "-sS", "--cacert", &ca, "https://web.test/page"], "a page");
    goes(&["wget", "-q", "--tries=1", "--ca-certificate", &ca, "-O", "-", "https://web.test/page"], "a page");

    let repository = servers.own("pages/repository.git");
    let work = servers.own("work");
    done(Command::new("git").args(["init", "--quiet", "--initial-branch=main", &work]));
    let in_work = |words: &[&str]| {
        done(
            Command::new("git")
                .args(["-C", &work, "-c", "user.name=a", "-c", "user.email=a@example.org"])
                .args(words),
        );
    };
    in_work(&["commit", "--quiet", "--allow-empty", "--no-gpg-sign", "-m", "first of all"]);
    done(Command::new("git").args(["clone", "--quiet", "--bare", &work, &repository]));
    done(Command::new("git").args(["-C", &repository, "update-server-info"]));
    let clone =
        "git clone --quiet https://web.test/repository.git /tmp/clone && git -C /tmp/clone log --format=%s";
    let variable = format!("export GIT_SSL_CAINFO={ca}; {clone}");
    goes(&["bash", "-c", &variable], "first of all");

    wheel(&servers);
    let install = format!(
        "pip3 install --quiet --disable-pip-version-check --no-cache-dir --retries 0 --cert {ca} --index-url https://web.test/simple/ --target /tmp/lib \
         carried && PYTHONPATH=/tmp/lib /usr/bin/python3 -c 'import carried; print(carried.WORD)'"
    );
    goes(&["bash", "-c", &install], "carried by pip");

    // Nobody else was reached, and nobody was while there was no rule.
    let log = fs::read_to_string(servers.own("access.log")).unwrap();
    let of = |agent: &str| log.lines().filter(|line| line.contains(agent)).count();
    assert_eq!((of("curl/"), of("Wget/")), (1, 1), "{log}");
    assert!(of("git/") > 1 && of("pip/") > 1, "{log}");
}

/// A package and its index, as `pip` asks for them.
fn wheel(servers: &Servers) {
    let name = "carried-1.0-py3-none-any.whl";
    let folder = servers.own("pages/simple/carried");
    fs::create_dir_all(&folder).unwrap();
    let script = format!(
        "import zipfile\nwith zipfile.ZipFile('{folder}/{name}', 'w') as z:\n \
         z.writestr('carried.py', 'WORD = \"carried by pip\"\\n')\n \
         z.writestr('carried-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: carried\\nVersion: 1.0\\n')\n \
         z.writestr('carried-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: a\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n \
         z.writestr('carried-1.0.dist-info/RECORD', '')\n"
    );
    done(Command::new("/usr/bin/python3").args(["-c", &script]));
    fs::write(format!("{folder}/index.html"), format!("<html><a href=\"{name}\">{name}</a></html>")).unwrap();
}

#[test]
fn ssh_goes_out_by_one_rule() {
    let tools = [
        ("/usr/sbin/sshd", "openssh-server"),
        ("/usr/bin/ssh", "openssh-client"),
        ("/usr/bin/ss", "iproute2"),
    ];
    if installed(&tools).is_none() {
        return;
    }
    let Some(mut servers) = Servers::boot() else { return };
    servers.shut();
    let (host, key) = (servers.own("host"), servers.shown("key"));
    for file in [Path::new(&host), &key] {
        done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file));
    }
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::write(servers.own("authorized"), &public).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let known = servers.shown("known");
    let host_key = fs::read_to_string(format!("{host}.pub")).unwrap();
    fs::write(&known, format!("web.test {host_key}")).unwrap();
    let config = format!(
        "ListenAddress {HOST}\nHostKey {host}\nPidFile none\nAuthorizedKeysFile {}\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
        servers.own("authorized")
    );
    fs::write(servers.own("sshd.conf"), config).unwrap();
    // Where the distribution's sshd shuts its first process in, seen by nobody else.
    let script = format!(
        "mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f {}",
        servers.own("sshd.conf")
    );
    servers.serve("-TERM", 22, &["unshare", "--mount", "--", "sh", "-c", &script]);
    // The key's rights are seen by whoever has it.
    let script = format!(
        "cp {} /tmp/key && chmod 600 /tmp/key && exec ssh -F none -i /tmp/key -o BatchMode=yes -o UserKnownHostsFile={} root@web.test echo said there",
        key.display(),
        known.display()
    );
    servers.goes_out_by_one_rule(
        "web.test:22",
        &format!("{HOST}:22"),
        &["bash", "-c", &script],
        "said there",
    );
}

#[test]
fn a_client_of_a_database_goes_out_by_one_rule() {
    let Some(initdb) = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .next()
    else {
        println!("skipped: no postgresql (apt-get install postgresql)");
        return;
    };
    if installed(&[("/usr/bin/ss", "iproute2"), ("/usr/bin/setpriv", "util-linux")]).is_none() {
        return;
    }
    let Some(mut servers) = Servers::boot() else { return };
    servers.shut();
    let data = servers.own("data");
    fs::create_dir(&data).unwrap();
    done(Command::new("chown").args(["postgres:", &data]));
    let as_user = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"];
    done(
        Command::new("setpriv")
            .args(as_user)
            .arg(initdb.join("initdb"))
            .args(["-D", &data, "-A", "trust", "--no-sync"])
            .current_dir("/"),
    );
    fs::write(format!("{data}/pg_hba.conf"), "host all all 0.0.0.0/0 trust\n").unwrap();
    let server = initdb.join("postgres");
    let words = [
        &["setpriv"][..],
        &as_user,
        &[server.to_str().unwrap(), "-D", &data, "-h", HOST, "-p", "5432", "-k", ""],
    ]
    .concat();
    servers.serve("-QUIT", 5432, &words);
    // By the link in /usr/bin it is a wrapper that looks for clusters of this host.
    let client = initdb.join("psql");
    let words = [
        client.to_str().unwrap(),
        "-At",
        "-c",
        "select 'counted ' || 41 + 1",
        "host=web.test user=postgres dbname=postgres sslmode=disable",
    ];
    servers.goes_out_by_one_rule("web.test:5432", &format!("{HOST}:5432"), &words, "counted 42");
}

#[test]
fn a_client_of_web_sockets_goes_out_by_one_rule() {
    let python = "/usr/bin/python3";
    let has = Command::new(python).args(["-c", "import websockets"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("skipped: no websockets for {python} (apt-get install python3-websockets)");
        return;
    }
    let Some(mut servers) = Servers::boot() else { return };
    servers.shut();
    let server = format!(
        "import asyncio, websockets\nasync def echo(peer):\n async for said in peer: await peer.send('heard ' + said)\n\
         async def main():\n async with websockets.serve(echo, '{HOST}', 8765): await asyncio.Future()\nasyncio.run(main())"
    );
    servers.serve("-KILL", 8765, &[python, "-c", &server]);
    let client = "import asyncio, websockets\nasync def main():\n async with websockets.connect('ws://web.test:8765') as peer:\n  \
                  await peer.send('hello'); print(await peer.recv())\nasyncio.run(main())";
    servers.goes_out_by_one_rule(
        "web.test:8765",
        &format!("{HOST}:8765"),
        &[python, "-c", client],
        "heard hello",
    );
}

/// The stub in a program's own network answers `dig` for what the program was given; another server is reached by TCP like
/// any place.
#[test]
fn dig_asks_for_the_names_that_were_given_and_other_servers_by_one_rule() {
    if installed(&[("/usr/bin/dig", "bind9-dnsutils")]).is_none() {
        return;
    }
    let Some(mut servers) = Servers::boot() else { return };
    servers.shut();
    let asked = |places: &[&str], name: &str| {
        let output = servers.client(places, &["dig", "+tries=1", "+noall", "+answer", "+comments", name]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = asked(&["web.test:443"], "web.test");
    assert!(said.contains(HOST) && said.contains("NOERROR"), "{said}");
    let said = asked(&["other.test:443"], "web.test");
    assert!(!said.contains(HOST) && (said.contains("REFUSED") || said.contains("NXDOMAIN")), "{said}");
    assert_eq!(servers.site.said("asked web.test. A"), 1);
    let server = format!(
        "import socket\nl = socket.create_server(('{HOST}', 53))\nwhile True:\n p, _ = l.accept(); q = p.recv(999)[2:]\n \
         end = q.index(0, 12) + 5\n a = q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + q[12:end] + b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + bytes([192, 0, 2, 99])\n \
         p.sendall(len(a).to_bytes(2, 'big') + a); p.close()"
    );
    servers.serve("-KILL", 53, &["/usr/bin/python3", "-c", &server]);
    let (asked, place) = (format!("@{HOST}"), format!("{HOST}:53"));
    let words = ["dig", "+tcp", "+tries=1", "+short", "+noedns", &asked, "elsewhere.test"];
    servers.goes_out_by_one_rule(&place, &place, &words, "192.0.2.99");
}

/// Static, with its own resolver and its own threads.
#[test]
fn a_go_program_goes_out_by_one_rule() {
    if installed(&[
        ("/usr/bin/go", "golang-go"),
        ("/usr/sbin/nginx", "nginx-light"),
        ("/usr/bin/openssl", "openssl"),
    ])
    .is_none()
    {
        return;
    }
    let Some(mut servers) = Servers::boot() else { return };
    servers.https();
    servers.shut();
    let source = "package main\nimport (\"crypto/tls\"; \"crypto/x509\"; \"fmt\"; \"io\"; \"net/http\"; \"os\")\n\
                  func main() {\n roots := x509.NewCertPool(); pem, _ := os.ReadFile(os.Args[1]); roots.AppendCertsFromPEM(pem)\n \
                  client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}\n \
                  answer, err := client.Get(os.Args[2])\n if err != nil { fmt.Println(err); os.Exit(1) }\n \
                  body, _ := io.ReadAll(answer.Body); fmt.Print(string(body))\n}\n";
    fs::write(servers.own("main.go"), source).unwrap();
    let program = servers.shown("goes");
    let variables =
        [("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("HOME", servers.folder.path().to_str().unwrap())];
    let mut build = Command::new("/usr/bin/go");
    done(
        build
            .env_remove("GOFLAGS")
            .envs(variables)
            .args(["build", "-o"])
            .arg(&program)
            .arg(servers.own("main.go")),
    );
    let ca = servers.shown("ca.pem");
    let words = [program.to_str().unwrap(), ca.to_str().unwrap(), "https://web.test/page"];
    servers.goes_out_by_one_rule("web.test:443", &format!("{HOST}:443"), &words, "a page");
}

/// Channels that do not wait, with a selector.
#[test]
fn a_java_program_goes_out_by_one_rule() {
    let Ok(java) = fs::canonicalize("/usr/bin/java") else {
        println!("skipped: no java");
        return;
    };
    let Some(mut servers) = Servers::boot() else { return };
    servers.shut();
    let server = format!(
        "import socket\nl = socket.create_server(('{HOST}', 8081))\nwhile True:\n p, _ = l.accept(); p.recv(9); p.sendall(b'answer'); p.close()"
    );
    servers.serve("-KILL", 8081, &["/usr/bin/python3", "-c", &server]);
    let source = "import java.net.*; import java.nio.*; import java.nio.channels.*;\npublic class Goes { public static void main(String[] a) throws Exception {\n \
                  var channel = SocketChannel.open(); channel.configureBlocking(false); var selector = Selector.open();\n \
                  channel.register(selector, SelectionKey.OP_CONNECT); channel.connect(new InetSocketAddress(a[0], Integer.parseInt(a[1])));\n \
                  var heard = ByteBuffer.allocate(64);\n \
                  while (true) { selector.select(); for (var key : selector.selectedKeys()) {\n  \
                  if (key.isConnectable()) { channel.finishConnect(); channel.write(ByteBuffer.wrap(\"question\".getBytes())); key.interestOps(SelectionKey.OP_READ); }\n  \
                  else if (key.isReadable() && channel.read(heard) < 0) { System.out.println(new String(heard.array(), 0, heard.position())); return; } }\n  \
                  selector.selectedKeys().clear(); } } }\n";
    let file = servers.shown("Goes.java");
    fs::write(&file, source).unwrap();
    let words = [java.to_str().unwrap(), "-XX:-UsePerfData", file.to_str().unwrap(), "web.test", "8081"];
    let address: SocketAddr = format!("{HOST}:8081").parse().unwrap();
    servers.goes_out_by_one_rule("web.test:8081", &address.to_string(), &words, "answer");
}
