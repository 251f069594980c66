//! Over its sockets a service does what its manifest grants, and loses what it misuses.

use std::time::Duration;

use base::{IdentityId, PublicKey};
use serde_json::Value;
use system_tests::{TestNode, within};

/// What a service runs in these tests: this same program, told by its environment what to call.
mod program {
    use super::*;
    use base::Hash;
    use contracts::{
        axiom::v1::{GetHeadRequest, axiom_client::AxiomClient},
        policy::v1::{
            Action, AddRuleRequest, ExplainRequest, PolicyRequest, ResourceRef, RuleFilter,
            policy_engine_client::PolicyEngineClient,
        },
        process_manager::v1::{ProcessFilter, SpawnRequest, processes_client::ProcessesClient},
        supervisor::v1 as supervisor,
    };
    use system_tests::client::{Client, reason};
    use tonic::Status;

    /// Steps, separated by spaces; `FOREIGN` is the id of somebody else's capability.
    const STEPS: &str = "TEST_STEPS";
    const IDENTITY: &str = "TEST_IDENTITY";
    const FOREIGN: &str = "TEST_FOREIGN";
    /// What is said of a server that does not serve at the moment.
    const AWAY: [&str; 6] =
        ["Unavailable", "ERR_SVC_SYS_NOT_READY", "DeadlineExceeded", "Unknown", "Cancelled", "Internal"];

    /// The manifest of a service that takes these steps, with its dependencies and capabilities.
    pub(super) fn manifest(node: &TestNode, name: &str, rest: &str, steps: &str, foreign: &str) -> String {
        let key = node.ok(&["key", "public", &format!("/orbital/services/{name}")]);
        let identity = IdentityId::of_key(&key.trim().parse::<PublicKey>().unwrap());
        let image = std::env::current_exe().unwrap();
        format!(
            "{rest}\n[program]\nimage = \"{}\"\nargs = [\"--exact\", \"rights::program::as_a_service\", \"--nocapture\"]\n\
             env = {{ {STEPS} = \"{steps}\", {IDENTITY} = \"{identity}\", {FOREIGN} = \"{foreign}\" }}\n",
            image.display()
        )
    }

    /// What a client of the supervisor tries beyond asking where a service is.
    fn supervise(client: &Client, step: &str) -> Option<Result<(), Status>> {
        let verb = step.strip_prefix("supervisor.")?;
        let calls = client.calls("supervisor", &format!("system.supervisor.{verb}"));
        let mut to = supervisor::supervisor_client::SupervisorClient::new(calls);
        let keys = || "keys".to_owned();
        Some(match verb {
            "lookup_service" => {
                let request = supervisor::LookupServiceRequest { name: keys(), version: String::new() };
                client.wait(to.lookup_service(request)).map(drop)
            }
            "start_service" => {
                client.wait(to.start_service(supervisor::StartServiceRequest { name: keys() })).map(drop)
            }
            "stop_service" => {
                let request = supervisor::StopServiceRequest { id: 0, name: keys() };
                client.wait(to.stop_service(request)).map(drop)
            }
            "restart_service" => {
                let request = supervisor::RestartServiceRequest { id: 0, name: keys() };
                client.wait(to.restart_service(request)).map(drop)
            }
            "list_services" => client.wait(to.list_services(supervisor::ListServicesRequest {})).map(drop),
            "report_laggard" => {
                let request = supervisor::ReportLaggardRequest { name: keys() };
                client.wait(to.report_laggard(request)).map(drop)
            }
            "shutdown" => {
                let request = supervisor::ShutdownRequest { reason: "x".to_owned() };
                client.wait(to.shutdown(request)).map(drop)
            }
            other => panic!("no step {other}"),
        })
    }

    fn step(client: &Client, step: &str) -> Result<(), Status> {
        if let Some(said) = supervise(client, step) {
            return said;
        }
        let policy = || PolicyEngineClient::new(client.calls("policy", &format!("system.policy.{step}")));
        match step {
            "get_head" => {
                let mut axiom = AxiomClient::new(client.calls("axiom", "system.axiom.get_head"));
                client.wait(axiom.get_head(GetHeadRequest {})).map(|_| ())
            }
            "list_rules" => client.wait(policy().list_rules(RuleFilter::default())).map(|_| ()),
            "explain" => client.wait(policy().explain(ExplainRequest { decision: 0 })).map(|_| ()),
            "add_rule" => client.wait(policy().add_rule(AddRuleRequest::default())).map(|_| ()),
            "evaluate" => {
                let path = "/orbital/services/keys".to_owned();
                let action =
                    Action { kind: "encrypt".to_owned(), key_path: path.clone(), ..Action::default() };
                let request = PolicyRequest {
                    requestor: client.identity().0.to_vec(),
                    action: Some(action),
                    resource: Some(ResourceRef { r#type: "key".to_owned(), id: path }),
                    ..PolicyRequest::default()
                };
                client.wait(policy().evaluate(request)).map(|_| ())
            }
            "list" => {
                let calls = client.calls("process_manager", "system.process_manager.list");
                client.wait(ProcessesClient::new(calls).list(ProcessFilter::default())).map(|_| ())
            }
            "spawn_with_foreign" => {
                let foreign: base::CapabilityId = std::env::var(FOREIGN).unwrap().parse().unwrap();
                let request = SpawnRequest {
                    image: Hash::ZERO.0.to_vec(),
                    identity: client.identity().0.to_vec(),
                    capabilities: vec![foreign.0.to_vec()],
                    name: "true".to_owned(),
                    idempotency_key: vec![1; 16],
                    ..SpawnRequest::default()
                };
                let calls = client.calls("process_manager", "system.process_manager.spawn");
                client.wait(ProcessesClient::new(calls).spawn(request)).map(|_| ())
            }
            other => panic!("no step {other}"),
        }
    }

    /// No test where nobody has said what to do.
    #[test]
    fn as_a_service() {
        let Ok(steps) = std::env::var(STEPS) else { return };
        let identity = std::env::var(IDENTITY).unwrap().parse().unwrap();
        let client = Client::new("/run/bailiwick", identity);
        for name in steps.split(' ') {
            // A server that is started anew meanwhile is asked again; `-gone` waits until it refuses.
            let (name, until_refused) = name.strip_suffix("-gone").map_or((name, false), |name| (name, true));
            let mut said = String::new();
            within(Duration::from_secs(20), || {
                said = step(&client, name).map_or_else(reason, |()| "ok".to_owned());
                !AWAY.contains(&said.as_str()) && (!until_refused || said != "ok")
            });
            println!("STEP {name} {said}");
        }
        println!("STEP end");
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// Starts a service that takes steps, and gives what came of each.
fn steps(
    node: &TestNode,
    name: &str,
    servers: &[&str],
    rest: &str,
    steps: &str,
    foreign: &str,
) -> Vec<String> {
    let needs: String =
        servers.iter().map(|server| format!("[[dependencies]]\nname = \"{server}\"\n")).collect();
    let applied =
        node.apply(name, &program::manifest(node, name, &format!("{rest}\n{needs}"), steps, foreign));
    assert!(applied.status.success(), "{applied:?}");
    let said = || node.ok(&["service", "logs", name]);
    assert!(within(Duration::from_secs(40), || said().contains("STEP end")), "{}", said());
    said().lines().filter_map(|line| line.split_once("STEP ")).map(|(_, rest)| rest.to_owned()).collect()
}

fn capabilities(all: &[(&str, &str)]) -> String {
    let one = |(name, word): &(&str, &str)| format!("{{ type = \"{name}\", permissions = [\"{word}\"] }}");
    format!("[capabilities]\nrequired = [{}]\n", all.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn revocations(node: &TestNode) -> Vec<Value> {
    node.log(&["CapabilityRevoke"]).iter().map(|entry| entry["body"].clone()).collect()
}

/// covers: AX-11, POL-36, CAP-03
#[test]
fn access_to_log_and_policy_is_what_the_manifest_grants() {
    let Some(node) = TestNode::boot() else { return };
    let servers = ["axiom", "policy"];
    let with = capabilities(&[("Axiom", "read"), ("Policy", "query")]);
    let said = steps(&node, "granted", &servers, &with, "get_head list_rules evaluate explain", "");
    // Even so, why something was refused is for the operator.
    assert_eq!(said, ["get_head ok", "list_rules ok", "evaluate ok", "explain acl_denied", "end"]);
    let said = steps(&node, "without", &servers, "", "get_head list_rules", "");
    assert_eq!(said, ["get_head acl_denied", "list_rules acl_denied", "end"]);
    let half = capabilities(&[("Axiom", "read")]);
    let said = steps(&node, "half", &servers, &half, "get_head list_rules", "");
    assert_eq!(said, ["get_head ok", "list_rules acl_denied", "end"]);
    let wrong = node.apply("wrong", &capabilities(&[("Axiom", "execute")]));
    assert!(
        !wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("execute"),
        "{wrong:?}"
    );
}

/// covers: CAP-13
#[test]
fn who_holds_no_right_to_write_rules_adds_none() {
    let Some(node) = TestNode::boot() else { return };
    let with = capabilities(&[("Policy", "query")]);
    let said = steps(&node, "ruler", &["policy"], &with, "add_rule", "");
    assert_eq!(said, ["add_rule acl_denied", "end"]);
    let identities = node.json(&["identity", "list"]);
    let mut identities = identities.as_array().unwrap().iter();
    let ruler = identities.find(|it| it["key_path"] == "/orbital/services/ruler").unwrap();
    node.ok(&["capability", "grant", "service:Policy", "w", ruler["name"].as_str().unwrap()]);
    node.ok(&["service", "restart", "ruler"]);
    let said = || node.ok(&["service", "logs", "ruler"]);
    let ends = || said().matches("STEP end").count();
    assert!(within(Duration::from_secs(40), || ends() == 2), "{}", said());
    let last =
        said().lines().filter_map(|line| line.split_once("STEP add_rule ")).next_back().unwrap().1.to_owned();
    assert_ne!(last, "acl_denied", "now it is the rule that is refused, for it is none");
}

/// covers: SUP-105
#[test]
fn a_client_of_the_supervisor_has_no_rights_by_that() {
    let Some(node) = TestNode::boot() else { return };
    let edge = "[[dependencies]]\nname = \"supervisor\"\nrequired = false\n";
    let tries =
        ["start_service", "stop_service", "restart_service", "list_services", "report_laggard", "shutdown"]
            .map(|verb| format!("supervisor.{verb}"));
    let before = node.pids();
    let said =
        steps(&node, "client", &[], edge, &format!("supervisor.lookup_service {}", tries.join(" ")), "");
    // Where a service is that it may not speak with, it is not told either.
    let expected = [
        "supervisor.lookup_service NoEndpoint",
        "supervisor.start_service NotForPrograms",
        "supervisor.stop_service NotForPrograms",
        "supervisor.restart_service NotForPrograms",
        "supervisor.list_services NotForPrograms",
        "supervisor.report_laggard acl_denied",
        "supervisor.shutdown acl_denied",
        "end",
    ];
    assert_eq!(said, expected);
    let after = node.pids();
    assert!(before.iter().all(|service| after.contains(service)), "{before:?} {after:?}");
    assert!(node.log(&["ServiceStop", "Shutdown"]).is_empty());
}

/// covers: SUP-64, AX-09, CAP-10, CAP-05
#[test]
fn what_a_service_misuses_is_recorded_and_taken_away() {
    let Some(mut node) = TestNode::boot() else { return };
    let with = capabilities(&[("Policy", "query")]);
    let tries = "list_rules add_rule add_rule add_rule list_rules-gone list_rules";
    let said = steps(&node, "greedy", &["policy"], &with, tries, "");
    let refused = |step: &str| format!("{step} acl_denied");
    assert_eq!(said[0], "list_rules ok");
    assert_eq!(said[1..4], ["add_rule"; 3].map(refused));
    assert_eq!(said[4..], [refused("list_rules"), refused("list_rules"), "end".to_owned()]);
    let revoked = revocations(&node);
    assert_eq!(revoked.len(), 1, "{revoked:?}");
    let reason = revoked[0]["reason"].as_str().unwrap();
    assert!(reason.contains("misuse by greedy") && reason.contains("3 refused uses"), "{reason}");
    assert_eq!(revoked[0]["by"], node.json(&["identity", "show", "orbital.services.supervisor"])["id"]);
    let identities = node.json(&["identity", "list"]);
    let mut identities = identities.as_array().unwrap().iter();
    let greedy = identities.find(|it| it["key_path"] == "/orbital/services/greedy").unwrap();
    let holder = greedy["name"].as_str().unwrap();
    let held =
        |node: &TestNode| node.json(&["capability", "list", "--holder", holder]).as_array().unwrap().len();
    assert_eq!(held(&node), 0);
    let granted = |node: &TestNode| {
        let grants = node.log(&["CapabilityGrant"]);
        grants.iter().filter(|entry| entry["body"]["grantee"] == greedy["id"]).count()
    };
    assert_eq!(granted(&node), 1);
    // The revocation was decided on, as every act.
    let decisions = node.log(&["PolicyDecision"]);
    let decided = decisions.iter().filter(|entry| entry["body"]["action"].get("revoke_capability").is_some());
    assert_eq!(decided.map(|entry| entry["body"]["effect"].clone()).collect::<Vec<_>>(), ["Allow"]);
    // One use of what another holds is enough.
    let others = node.json(&["capability", "list", "--holder", "orbital.services.policy"]);
    let foreign = others[0]["id"].as_str().unwrap();
    let with = "[capabilities]\nrequired = [{ type = \"Process\", permissions = [\"read\", \"write\"] }]\n";
    let tries = "list spawn_with_foreign list-gone";
    let said = steps(&node, "forger", &["process_manager"], with, tries, foreign);
    assert_eq!(said, ["list ok", "spawn_with_foreign CapabilityDenied", "list acl_denied", "end"]);
    let revoked = revocations(&node);
    assert!(revoked[1]["reason"].as_str().unwrap().contains("misuse by forger"), "{revoked:?}");
    assert_ne!(revoked[1]["capability"].as_str(), Some(foreign), "the victim keeps what is its own");
    assert_eq!(node.json(&["capability", "list", "--holder", "orbital.services.policy"]), others);
    // Neither is given again because the node was started again; the operator can.
    assert!(node.apply("later", "[program]\nimage = \"/bin/sleep\"\nargs = [\"1000\"]\n").status.success());
    node.down();
    node.up();
    let runs = |node: &TestNode, name: &str| node.pids().iter().any(|(known, _)| known == name);
    // Manifests are taken in by name.
    assert!(within(Duration::from_secs(20), || runs(&node, "later")));
    assert!(!runs(&node, "greedy") && !runs(&node, "forger"));
    assert_eq!((held(&node), granted(&node), revocations(&node).len()), (0, 1, 2));
    let again = node.run(&["service", "apply", node.root().join("greedy.toml").to_str().unwrap()]);
    assert!(again.status.success(), "{again:?}");
    // Whether it still holds it is another question: the program does the same again.
    assert_eq!(granted(&node), 2);
}
