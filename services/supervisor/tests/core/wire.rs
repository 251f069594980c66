use std::time::Duration;

use base::{CapabilityId, IdentityId, KeyPath};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use supervisor::core::lifecycle::{
    ComponentHealth, HealthStatus, LifecycleMessage, LifecycleResponse, ServiceConfig, ServiceIdentity,
};
use supervisor::core::restart::RestartPolicy;
use supervisor::manifest::ServiceType;

use crate::world::{World, fixtures};

#[track_caller]
fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Value {
    let json = serde_json::to_value(value).unwrap();
    assert_eq!(serde_json::from_value::<T>(json.clone()).unwrap(), *value);
    json
}

fn init() -> LifecycleMessage {
    LifecycleMessage::Init {
        config: ServiceConfig { name: "a".into(), version: "1.0.0".into(), manifest: "version = 1".into() },
        capabilities: vec![CapabilityId([3; 16])],
        identity: ServiceIdentity {
            id: IdentityId([4; 32]),
            key_path: KeyPath::parse("/orbital/services/a").unwrap(),
            permissions: vec!["fs.read".into()],
        },
    }
}

fn messages() -> [LifecycleMessage; 6] {
    use LifecycleMessage::{HealthCheck, PrepareStop, Start, StatusRequest, Stop};
    [init(), Start, PrepareStop, Stop, HealthCheck, StatusRequest]
}

fn responses() -> [LifecycleResponse; 6] {
    use LifecycleResponse::{Health, InitComplete, ReadyToStop, Started, Status, Stopped};
    let component = ComponentHealth {
        name: "disk".into(),
        healthy: false,
        message: Some("full".into()),
        degraded: false,
    };
    let health = HealthStatus {
        healthy: false,
        components: vec![component],
        last_error: None,
        uptime: Duration::from_millis(1500),
        degraded: true,
    };
    let status = World::booted(fixtures()).status("keys");
    [InitComplete, Started, ReadyToStop, Stopped, Health(health), Status(Box::new(status))]
}

/// covers: SUP-56, SUP-57, SUP-72, SUP-77, SUP-83
#[test]
fn lifecycle_messages_and_responses_survive_and_nothing_else_is_taken() {
    messages().iter().for_each(|message| drop(survives(message)));
    responses().iter().for_each(|response| drop(survives(response)));
    assert!(serde_json::from_value::<LifecycleMessage>(json!("Pause")).is_err());
    assert!(serde_json::from_value::<LifecycleResponse>(json!("Refused")).is_err());
    let mut value = survives(&init());
    value["Init"].as_object_mut().unwrap().remove("identity");
    assert!(serde_json::from_value::<LifecycleMessage>(value).is_err());
    assert!(serde_json::from_value::<HealthStatus>(json!({ "healthy": true })).is_err());
}

/// covers: SUP-58
#[test]
fn each_message_has_one_answer() {
    for (m, message) in messages().iter().enumerate() {
        for (r, response) in responses().iter().enumerate() {
            assert_eq!(response.answers(message), m == r, "{message:?} {response:?}");
        }
    }
}

/// covers: SUP-28, SUP-65, SUP-77
#[test]
fn policies_and_types_survive_and_unknown_members_are_errors() {
    for kind in [ServiceType::Core, ServiceType::System, ServiceType::User, ServiceType::Driver] {
        survives(&kind);
        let json = survives(&RestartPolicy::of_type(kind));
        for field in ["max_restarts", "window", "delay", "backoff", "max_delay", "on_exhausted"] {
            let mut without = json.clone();
            without.as_object_mut().unwrap().remove(field).unwrap();
            assert!(serde_json::from_value::<RestartPolicy>(without).is_err(), "{field}");
        }
    }
    assert!(serde_json::from_value::<ServiceType>(json!("Kernel")).is_err());
    let memory = World::booted(fixtures()).machine.memory();
    survives(&memory);
}
