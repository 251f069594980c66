//! What the log says about calls: which service is of which type, and the policy by URL that is in force.

use std::{borrow::Cow, collections::BTreeMap};

use base::AxiomRef;
use chain::payload::{
    Payload,
    network::{NetworkPolicyUpdate, ProcessClass},
    service::ServiceType,
};
use minicbor::{Decode, Encode};

use super::{User, default_policy};

/// The service that runs programs of others.
const RUNTIME: &str = "process_manager";
/// The operator's channel.
const OPERATOR: &str = "admin";

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct CallFold {
    #[n(0)]
    services: BTreeMap<String, ServiceType>,
    #[n(1)]
    update: Option<Update>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Update {
    #[n(0)]
    pub policy: NetworkPolicyUpdate,
    #[n(1)]
    pub at: AxiomRef,
}

impl CallFold {
    /// Takes an entry in; whether another policy is in force.
    pub fn apply(&mut self, at: AxiomRef, payload: &Payload) -> bool {
        match payload {
            Payload::ServiceRegister(entry) => {
                self.services.insert(entry.body.name.clone(), entry.body.service_type);
                false
            }
            Payload::NetworkPolicyUpdate(entry) => {
                self.update = Some(Update { policy: entry.body.clone(), at });
                true
            }
            _ => false,
        }
    }

    /// The one that is in force: the last that was recorded, or the default (NET-64).
    #[must_use]
    pub fn policy(&self) -> NetworkPolicyUpdate {
        self.in_force().into_owned()
    }

    /// The same to look at: who asks for each request does not copy it.
    #[must_use]
    pub fn in_force(&self) -> Cow<'_, NetworkPolicyUpdate> {
        match &self.update {
            Some(update) => Cow::Borrowed(&update.policy),
            None => Cow::Owned(default_policy()),
        }
    }

    /// Where it stands; none for the default.
    #[must_use]
    pub fn policy_at(&self) -> Option<AxiomRef> {
        self.update.as_ref().map(|update| update.at)
    }

    /// Who is at the other end of a channel (NET-65). Of whom nothing is known is an application.
    #[must_use]
    pub fn user(&self, channel: &str, is_operator: bool) -> User {
        let class = match self.services.get(channel) {
            _ if is_operator => ProcessClass::System,
            // The operator's channel has that name; a service that took it gets nothing by it.
            _ if channel == OPERATOR => ProcessClass::Application,
            Some(ServiceType::Core | ServiceType::System | ServiceType::Driver) if channel == RUNTIME => {
                ProcessClass::Runtime
            }
            Some(ServiceType::Core | ServiceType::System | ServiceType::Driver) => ProcessClass::System,
            Some(ServiceType::User) | None => ProcessClass::Application,
        };
        User { class, name: channel.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{EntryKey, Hash, IdentityId, KeyPath, Sequence};
    use chain::payload::{Body, Envelope, network::UrlRule, service::ServiceRegister};

    fn entry<T: Body>(body: T) -> Payload {
        let (submitter, key) = (IdentityId([1; 32]), EntryKey([0; 16]));
        let bytes = Envelope { submitter, key, authorization: None, body }.to_bytes().unwrap();
        Payload::decode(T::ENTRY_TYPE, &bytes).unwrap()
    }

    fn registered(name: &str, service_type: ServiceType) -> Payload {
        entry(ServiceRegister {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            service_type,
            binary: Hash::ZERO,
            manifest: Hash::ZERO,
            key_path: KeyPath::parse("/orbital/services/x").unwrap(),
        })
    }

    fn updated(number: u32) -> Payload {
        let mut policy = default_policy();
        policy.rules = vec![UrlRule { priority: number, ..policy.rules[0].clone() }];
        entry(policy)
    }

    fn step(fold: &mut CallFold, number: u32) {
        let at = AxiomRef { sequence: Sequence(u64::from(number)), hash: Hash::ZERO };
        let payload = match number % 3 {
            0 => updated(number),
            1 => registered(&format!("s{number}"), ServiceType::User),
            _ => registered(&format!("s{number}"), ServiceType::System),
        };
        assert_eq!(fold.apply(at, &payload), number.is_multiple_of(3));
    }

    /// covers: NET-64
    #[test]
    fn what_was_written_down_anywhere_goes_on_to_the_same_bytes() {
        let mut whole = CallFold::default();
        assert_eq!((whole.policy(), whole.policy_at()), (default_policy(), None));
        (0..12).for_each(|number| step(&mut whole, number));
        for cut in 0..=12 {
            let mut begun = CallFold::default();
            (0..cut).for_each(|number| step(&mut begun, number));
            let mut resumed: CallFold = base::cbor::decode(&base::cbor::encode(&begun)).unwrap();
            (cut..12).for_each(|number| step(&mut resumed, number));
            assert_eq!(resumed, whole, "cut at {cut}");
        }
        assert_eq!(whole.policy().rules[0].priority, 9, "the last one");
        assert_eq!(whole.policy_at().map(|at| at.sequence), Some(Sequence(9)));
        let hash = base::Hash::of(&base::cbor::encode(&whole)).to_string();
        assert_eq!(
            hash, "blake3:43da07bdce4692e2dd259dab94887858ea7df1fedade4579965bab6f66894d20",
            "a fold that changes has another FOLD_VERSION"
        );
    }

    /// covers: NET-65, PRC-42
    #[test]
    fn the_class_comes_from_what_was_registered_under_the_name_of_the_socket() {
        let mut fold = CallFold::default();
        let at = AxiomRef { sequence: Sequence(1), hash: Hash::ZERO };
        for (name, kind) in [
            ("web", ServiceType::User),
            ("keys", ServiceType::Core),
            ("terminal", ServiceType::System),
            ("nvme", ServiceType::Driver),
            (RUNTIME, ServiceType::System),
            (OPERATOR, ServiceType::System),
        ] {
            fold.apply(at, &registered(name, kind));
        }
        let class = |name: &str, is_operator| fold.user(name, is_operator).class;
        for system in ["keys", "terminal", "nvme"] {
            assert_eq!(class(system, false), ProcessClass::System, "{system}");
        }
        assert_eq!(class(RUNTIME, false), ProcessClass::Runtime);
        for application in ["web", "unknown", OPERATOR] {
            assert_eq!(class(application, false), ProcessClass::Application, "{application}");
        }
        assert_eq!(class(OPERATOR, true), ProcessClass::System);
        assert_eq!(fold.user("web", false).name, "web");
    }
}
