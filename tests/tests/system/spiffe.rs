//! Services get SVIDs from SPIFFE's Workload API, and SPIFFE's own client library takes them.

use std::{
    fs,
    future::Future,
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use contracts::spiffe::{X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient};
use serde_json::Value;
use spiffe::{JwtSvid, WorkloadApiClient};
use system_tests::{TestNode, within};
use tokio_stream::StreamExt;
use tonic::{Code, Request};

const LIMIT: Duration = Duration::from_secs(30);
/// What the node's operator has settled for these tests, and half of it.
const LIFETIME_S: u64 = 10;
const SETTINGS: &str = "[svid]\nx509_lifetime_s = 10\njwt_lifetime_s = 10\n";

fn manifest(name: &str, workload_api: bool, program: &str) -> String {
    format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
         [identity]\nworkload_api = {workload_api}\n[program]\n{program}\n"
    )
}

/// Starts a service of this manifest.
fn apply(node: &TestNode, name: &str, text: &str) {
    let file = node.file(&format!("{name}.toml"), text);
    node.ok(&["apply", "-f", &file]);
}

fn waiting(node: &TestNode, name: &str) {
    apply(node, name, &manifest(name, true, "image = \"/bin/sleep\"\nargs = [\"1000\"]"));
}

/// A node with short-lived SVIDs. None where there is no binary.
fn node() -> Option<TestNode> {
    let mut node = TestNode::empty()?;
    fs::create_dir(node.root().join("config")).unwrap();
    fs::write(node.root().join("config/identity.toml"), SETTINGS).unwrap();
    node.up();
    Some(node)
}

/// The socket of a service's workloads, which the test's own user reaches outside of the sandbox.
fn socket(node: &TestNode, name: &str) -> String {
    format!("unix://{}", node.root().join(format!("run/workload/{name}.sock")).display())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, future).await.expect("an answer in time") })
}

async fn client(node: &TestNode, name: &str) -> WorkloadApiClient {
    WorkloadApiClient::connect_to(socket(node, name)).await.unwrap()
}

fn code(error: &spiffe::WorkloadApiError) -> String {
    format!("{error:?}")
}

/// Entries about SVIDs that were issued, and uses of the authority's keys.
fn issued(node: &TestNode) -> (Vec<Value>, Vec<Value>) {
    let mut updates = node.log(&["IdentityUpdated"]);
    updates.retain(|entry| entry["body"]["change"]["svid_issued"].is_object());
    let mut uses = node.log(&["KeyUsage"]);
    uses.retain(|entry| {
        entry["body"]["key_path"].as_str().unwrap().starts_with("/orbital/services/identity/test/@")
    });
    (updates, uses)
}

#[test]
fn a_service_in_its_sandbox_gets_svids_that_the_client_library_verifies() {
    let Some(node) = node() else { return };
    let workload = env!("CARGO_BIN_EXE_workload");
    let program = format!("image = \"{workload}\"\nargs = [\"show\", \"db\"]");
    apply(&node, "web", &manifest("web", true, &program));
    let said = within(LIMIT, || node.service_log("web").contains('}'));
    assert!(said, "{}\n{}", node.service_log("web"), node.service_log("identity"));
    let shown: Value = serde_json::from_str(node.service_log("web").lines().next().unwrap()).unwrap();
    for of in ["x509", "jwt", "validated"] {
        assert_eq!(shown[of], "spiffe://test/services/web", "{of}");
    }
    // Each was decided for the service and is on record, and so is each use of the authority's keys.
    let (updates, uses) = issued(&node);
    let web = node.json(&["identity", "show", "orbital.services.web"])["id"].clone();
    assert!(updates.iter().all(|entry| entry["body"]["identity"] == web));
    let of = |kind: &str| -> Vec<&Value> {
        let change = |entry: &'_ Value| entry["body"]["change"]["svid_issued"]["svid"][kind].is_object();
        updates.iter().filter(|entry| change(entry)).collect()
    };
    assert_eq!((of("x509").len(), of("jwt").len()), (1, 1), "{updates:?}");
    for update in &updates {
        let message = &update["body"]["change"]["svid_issued"]["message_hash"];
        assert!(
            uses.iter().any(|entry| entry["body"]["message_hash"] == *message),
            "{message} was not signed"
        );
    }
    // And the authority's own certificate.
    assert_eq!(uses.len(), updates.len() + 1, "{uses:?}");
    assert!(uses.iter().all(|entry| entry["body"]["refused"].is_null()), "{uses:?}");
    let shown = node.json(&["identity", "svid", "web"]);
    assert_eq!(
        (&shown["spiffe_id"], &shown["x509_lifetime_s"]),
        (&"spiffe://test/services/web".into(), &10.into())
    );

    // One without the line in its manifest has neither a socket nor the variable.
    let shell = "image = \"/bin/sh\"\nargs = [\"-c\", \"ls /run/bailiwick; echo socket=$SPIFFE_ENDPOINT_SOCKET.; sleep 1000\"]";
    apply(&node, "plain", &manifest("plain", false, shell));
    assert!(within(LIMIT, || node.service_log("plain").contains("socket=")));
    assert!(node.service_log("plain").contains("socket=.\n"), "{}", node.service_log("plain"));
    assert!(!node.service_log("plain").contains("workload.sock"), "{}", node.service_log("plain"));
    assert!(!node.root().join("run/workload/plain.sock").exists());
    // With it, both.
    apply(&node, "asked", &manifest("asked", true, shell));
    assert!(within(LIMIT, || node
        .service_log("asked")
        .contains("socket=unix:///run/bailiwick/workload.sock.")));
    assert!(node.service_log("asked").contains("workload.sock\n"));
}

#[test]
fn two_services_speak_tls_with_each_other_and_with_nobody_else() {
    let Some(node) = node() else { return };
    let workload = env!("CARGO_BIN_EXE_workload");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |name: &str, role: &str, peer: &str| {
        let program = format!(
            "image = \"{workload}\"\nargs = [\"{role}\", \"{port}\", \"spiffe://test/services/{peer}\"]\n[sandbox]\nnetwork = \"host\""
        );
        apply(&node, name, &manifest(name, true, &program));
    };
    start("server", "serve", "caller");
    start("caller", "call", "server");
    let both =
        || node.service_log("server").contains("served") && node.service_log("caller").contains("heard");
    assert!(within(LIMIT, both), "{}{}", node.service_log("server"), node.service_log("caller"));
    assert!(node.service_log("server").contains("served spiffe://test/services/caller"));
    // A third service proves who it is as well, and is not the one that is let in.
    start("stranger", "call", "server");
    assert!(
        within(LIMIT, || node.service_log("server").contains("refused")),
        "{}",
        node.service_log("server")
    );
    assert!(!node.service_log("stranger").contains("heard"));
}

#[test]
fn an_svid_is_renewed_at_half_of_its_life_and_ends_with_its_identity() {
    let Some(node) = node() else { return };
    waiting(&node, "web");
    wait(async {
        let client = client(&node, "web").await;
        let mut stream = client.stream_x509_contexts().await.unwrap();
        let mut certificates = Vec::new();
        let since = Instant::now();
        for _ in 0..3 {
            let context = stream.next().await.unwrap().unwrap();
            let svid = context.default_svid().unwrap();
            assert_eq!(svid.spiffe_id().to_string(), "spiffe://test/services/web");
            certificates.push(svid.leaf().as_bytes().to_vec());
        }
        // Two times half of ten seconds, and what a busy machine takes.
        let took = since.elapsed();
        assert!(took >= Duration::from_secs(LIFETIME_S - 1), "{took:?}");
        assert!(certificates.windows(2).all(|pair| pair[0] != pair[1]));
        let bundle = node.ok(&["identity", "bundle", "--pem"]);
        openssl_verifies(&node, &certificates[2], &bundle);

        node.ok(&["identity", "suspend", "orbital.services.web", "--reason", "test"]);
        let since = Instant::now();
        let ended = stream.next().await.unwrap().unwrap_err();
        // At once, not when the next one is due.
        assert!(since.elapsed() < Duration::from_secs(LIFETIME_S / 4), "{:?}", since.elapsed());
        assert!(code(&ended).contains("PermissionDenied"), "{ended:?}");
        assert!(stream.next().await.is_none());
        let refused = client.fetch_x509_svid().await.unwrap_err();
        assert!(code(&refused).contains("PermissionDenied"), "{refused:?}");
        let refused = client.fetch_jwt_token(["db"], None).await.unwrap_err();
        assert!(code(&refused).contains("PermissionDenied"), "{refused:?}");
        let (before, _) = issued(&node);
        node.ok(&["identity", "resume", "orbital.services.web", "--reason", "test"]);
        assert!(client.fetch_x509_svid().await.is_ok());
        assert_eq!(issued(&node).0.len(), before.len() + 1);
    });
}

/// Another program, where it is installed.
fn openssl_verifies(node: &TestNode, leaf: &[u8], bundle: &str) {
    let (file, authority) = (node.root().join("leaf.der"), node.file("authority.pem", bundle));
    fs::write(&file, leaf).unwrap();
    let verify = |purpose: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &authority]);
        openssl.arg(pem_of(&file)).output()
    };
    for purpose in ["sslserver", "sslclient"] {
        let Ok(output) = verify(purpose) else {
            println!("skipped: no openssl (apt-get install openssl)");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{purpose}: {said}");
    }
}

/// Older programs read no DER there.
fn pem_of(file: &Path) -> std::path::PathBuf {
    let pem = file.with_extension("pem");
    let made = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-in"])
        .arg(file)
        .arg("-out")
        .arg(&pem)
        .output();
    drop(made);
    pem
}

#[test]
fn what_is_not_asked_as_spiffe_asks_is_refused() {
    let Some(node) = node() else { return };
    waiting(&node, "web");
    waiting(&node, "other");
    wait(async {
        let client = client(&node, "web").await;
        let token = client.fetch_jwt_token(["db"], None).await.unwrap();
        let bundles = client.fetch_jwt_bundles().await.unwrap();
        assert!(JwtSvid::parse_and_validate(&token, &bundles, &["db"]).is_ok());
        assert!(JwtSvid::parse_and_validate(&token, &bundles, &["mail"]).is_err());
        // The node says the same, to any workload.
        let other = self::client(&node, "other").await;
        assert_eq!(other.validate_jwt_token("db", &token).await.unwrap().spiffe_id().path(), "/services/web");
        for (audience, text) in [("mail", token.clone()), ("db", format!("{}AA", &token[..token.len() - 2]))]
        {
            let refused = other.validate_jwt_token(audience, &text).await.unwrap_err();
            assert!(code(&refused).contains("InvalidArgument"), "{refused:?}");
        }
        let id = "spiffe://test/services/other".parse().unwrap();
        let refused = client.fetch_jwt_token(["db"], Some(&id)).await.unwrap_err();
        assert!(code(&refused).contains("PermissionDenied"), "{refused:?}");

        let path = node.root().join("run/workload/web.sock");
        let channel = tonic::transport::Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move {
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                        tokio::net::UnixStream::connect(path).await?,
                    ))
                }
            }))
            .await
            .unwrap();
        let mut bare = SpiffeWorkloadApiClient::new(channel.clone());
        let with = |values: &[&'static str]| {
            let mut request = Request::new(X509svidRequest {});
            for value in values {
                request.metadata_mut().append("workload.spiffe.io", value.parse().unwrap());
            }
            request
        };
        assert!(bare.fetch_x509svid(with(&["true"])).await.is_ok());
        for wrong in [&[][..], &["false"], &["true", "true"]] {
            let refused = bare.fetch_x509svid(with(wrong)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
        }
        // Nothing else is served on such a socket.
        let mut identities = contracts::identity::v1::identities_client::IdentitiesClient::new(channel);
        let refused = identities.who_am_i(contracts::identity::v1::WhoAmIRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
    });
}

#[test]
fn policy_refuses_an_svid_and_why_says_so() {
    let Some(node) = node() else { return };
    waiting(&node, "web");
    let id = node.json(&["identity", "show", "orbital.services.web"])["id"].as_str().unwrap().to_owned();
    let rule = format!(
        "[[rule]]\nid = \"no-svid\"\nname = \"No SVID\"\npriority = 950\neffect = \"Deny\"\n\
         [rule.condition]\nand = [{{ identity = {{ exact = \"{id}\" }} }}, {{ action = {{ kind = \"authenticate\" }} }}]\n"
    );
    node.ok(&["policy", "add", &node.file("deny.toml", &rule)]);
    wait(async {
        let client = client(&node, "web").await;
        let refused = client.fetch_x509_svid().await.unwrap_err();
        assert!(code(&refused).contains("PermissionDenied"), "{refused:?}");
    });
    assert_eq!(issued(&node).0.len(), 0);
    assert!(node.ok(&["why", "last"]).contains("no-svid"));
}
