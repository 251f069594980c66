//! Programs of users speak to services: the seed's own examples in Rust, and Python with its standard library alone.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use system_tests::{TestNode, within};

const LIMIT: Duration = Duration::from_secs(60);
const URL: &str = "TEST_URL";
const PYTHON: &str = "/usr/bin/python3";
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../daemons/client_py/bailiwick.py");

/// What runs as a service of a node: this same program.
mod program {
    use ::sdk::{
        Client, Error, HttpMethod, HttpRequest, MSG_NET_REQUEST, Reply, Supervisor, encode, lookup_service,
        receive_reply, send,
    };

    use super::URL;

    fn asked(url: String) -> Result<String, Error> {
        // Look up network service
        let network_ep = lookup_service("network")?;

        // Make HTTP request
        let request =
            HttpRequest { method: HttpMethod::Get, url, headers: vec![], body: None, timeout_ms: 30000 };
        send(network_ep, MSG_NET_REQUEST, &encode(&request));
        let response = receive_reply();

        let Reply::HttpResponse(response) = response? else { panic!("another reply") };
        Ok(match response.result {
            Ok(success) => format!("{} {}", success.status, String::from_utf8_lossy(&success.body)),
            Err(error) => format!("{error:?}"),
        })
    }

    fn connected(supervisor: &Supervisor, name: &str) -> Result<Client, Error> {
        // Find a service
        let endpoint = supervisor.lookup_service(name)?;

        // Connect
        let client = Client::connect(endpoint)?;
        Ok(client)
    }

    fn reason(error: &Error) -> String {
        error.reason().map_or_else(|| error.to_string(), str::to_owned)
    }

    /// No test where nobody has said what to ask for.
    #[test]
    fn as_a_service() {
        let Ok(url) = std::env::var(URL) else { return };
        let said = asked(url.clone()).unwrap_or_else(|error| reason(&error));
        println!("SAID {said}");
        println!("SAID {}", asked("no URL".to_owned()).unwrap_or_else(|error| reason(&error)));
        let supervisor = Supervisor::of_environment().unwrap();
        let network = connected(&supervisor, "network").unwrap();
        println!("SAID {}", network.endpoint().name);
        println!("SAID {}", reason(&connected(&supervisor, "keys").unwrap_err()));
        send(network.endpoint().clone(), 0x9fff, &[]);
        println!("SAID {}", receive_reply().unwrap_err());
        println!("SAID {}", receive_reply().unwrap_err());
        println!("SAID end");
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
}

/// Tells each who asks what was asked for.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let first = head.next().unwrap_or_default();
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{first}", first.len());
        }
    });
    place
}

/// What a service has printed, once it has come to its end.
fn said(node: &TestNode, name: &str) -> Vec<String> {
    let log = || node.service_log(name);
    assert!(within(LIMIT, || log().contains("SAID end")), "{}", log());
    log().lines().filter_map(|line| line.split_once("SAID ")).map(|(_, rest)| rest.to_owned()).collect()
}

fn manifest(program: &str) -> String {
    format!(
        "[capabilities]\nrequired = [{{ type = \"Network\", permissions = [\"read\", \"write\"] }}]\n\
         [[dependencies]]\nname = \"network\"\nrequired = false\n\
         [[dependencies]]\nname = \"supervisor\"\nrequired = false\n{program}"
    )
}

/// Whoever is an application may ask for what is at this place.
fn allow(node: &TestNode, place: SocketAddr) {
    let connect = node.file(
        "connect.toml",
        format!(
            "[[rule]]\nid = \"out\"\nname = \"out\"\npriority = 600\neffect = \"Allow\"\n[rule.condition]\nand = [\n\
             {{ identity = {{ pattern = \"orbital.services.*\" }} }},\n\
             {{ action = {{ kind = \"connect\" }} }},\n\
             {{ resource = {{ exact = {{ type = \"network\", id = \"{place}\" }} }} }},\n]\n"
        ),
    );
    node.ok(&["policy", "add", &connect]);
    let urls = node.file(
        "urls.toml",
        "[[rule]]\nid = \"here\"\napplies_to = \"application\"\nurl_pattern = \"127.0.0.1\"\nallow = true\npriority = 9\n",
    );
    node.ok(&["network", "rules", "set", &urls]);
}

/// covers: NET-17, NET-18, NET-19, SUP-75
#[test]
fn the_seeds_examples_run_as_a_program_of_the_node() {
    let Some(node) = TestNode::boot() else { return };
    let place = serve();
    allow(&node, place);
    let image = std::env::current_exe().unwrap();
    let program = format!(
        "[program]\nimage = \"{}\"\nargs = [\"--exact\", \"sdk::program::as_a_service\", \"--nocapture\"]\n\
         env = {{ {URL} = \"http://{place}/data\" }}\n",
        image.display()
    );
    let applied = node.apply("asks", &manifest(&program));
    assert!(applied.status.success(), "{applied:?}");
    let said = said(&node, "asks");
    assert_eq!(
        said[..6],
        [
            "200 GET /data HTTP/1.1",
            "InvalidUrl",
            "network",
            "NoEndpoint",
            "there is no message 0x9fff",
            "nothing was sent that would be answered"
        ],
        "{said:?}"
    );
    let recorded = node.log(&["ConnectionAuthorize"]);
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!(recorded[0]["body"]["remote"], place.to_string());
}

/// covers: NET-17
#[test]
fn python_needs_its_standard_library_alone() {
    if !Path::new(PYTHON).exists() {
        println!("skipped: no {PYTHON}");
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    let place = serve();
    allow(&node, place);
    let client = std::fs::read_to_string(CLIENT).unwrap();
    assert!(client.lines().count() <= 100, "the client is to be read in a minute");
    let script = format!(
        "{client}\n\
         network = lookup_service('network')\n\
         status, headers, body = fetch(network, 'http://{place}/data')\n\
         print('SAID', status, dict(headers)['content-length'], body.decode())\n\
         def refused(call):\n    try: call()\n    except Refused as error: print('SAID', error.reason or error.code)\n\
         refused(lambda: lookup_service('keys'))\n\
         refused(lambda: fetch(network, 'no URL'))\n\
         print('SAID end', flush=True)\n\
         import time; time.sleep(1000)\n"
    );
    // An argument of a manifest has at most four kilobytes.
    let lines: Vec<&str> = script.split_inclusive('\n').collect();
    let parts: Vec<String> = lines.chunks(40).map(|part| format!("'''{}'''", part.concat())).collect();
    let run = "import sys; exec(str().join(sys.argv[1:]))";
    let program =
        format!("[program]\nimage = \"{PYTHON}\"\nargs = [\"-c\", \"{run}\", {}]\n", parts.join(", "));
    let applied = node.apply("snake", &manifest(&program));
    assert!(applied.status.success(), "{applied:?}");
    let said = said(&node, "snake");
    assert_eq!(said[0], "200 18 GET /data HTTP/1.1", "{said:?}");
    assert_eq!(said[1..3], ["NoEndpoint", "NETWORK_ERROR_KIND_INVALID_URL"], "{said:?}");
}
