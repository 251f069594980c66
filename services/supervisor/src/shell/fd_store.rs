//! Descriptors that programs leave to be given back to their next process (`FDSTORE=1` of sd_notify). The keeper holds
//! them; here is only which there are. They are let go when their service rests.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{inputs::Input, keeper_client::Keeper, listeners::HandedOver};
use crate::manifest::limits::STORED_DESCRIPTORS_MAX;

/// Descriptors of all services together, so that programs cannot fill the keeper's table.
pub(super) const ALL_MAX: usize = 512;
/// What a service may leave at any time; more only while the others have left half of all free.
const SHARE: usize = 4;
const FREE_FOR_ALL_MAX: usize = ALL_MAX / 2;

/// By service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FdStore {
    kept: BTreeMap<String, Vec<Kept>>,
    next: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    number: u64,
    name: String,
}

fn stored_name(service: &str, number: u64) -> String {
    format!("fd:{service}:{number}")
}

impl FdStore {
    /// In the order in which they came; after the sockets of the manifest.
    #[must_use]
    pub(super) fn handed_over(&self, service: &str) -> Vec<HandedOver> {
        let of =
            |kept: &Kept| HandedOver { stored: stored_name(service, kept.number), name: kept.name.clone() };
        self.kept.get(service).map(|kept| kept.iter().map(of).collect()).unwrap_or_default()
    }

    pub(super) fn store(
        &mut self,
        keeper: &Keeper,
        inputs: &mpsc::UnboundedSender<Input>,
        service: &str,
        name: &str,
        fds: Vec<OwnedFd>,
    ) {
        for fd in fds {
            match self.admit(service, name) {
                Ok(stored) => {
                    let done = keeper.store(&stored, fd);
                    let inputs = inputs.clone();
                    let (service, name) = (service.to_owned(), name.to_owned());
                    tokio::spawn(async move {
                        if let Err(error) = done.await {
                            tracing::warn!(%error, stored, "a descriptor of a program is not kept");
                            // A launch that named it would fail.
                            let _ = inputs.send(Input::ForgetDescriptors { service, name });
                        }
                    });
                }
                Err(why) => tracing::warn!(service, name, why, "a descriptor of a program is not kept"),
            }
        }
    }

    fn admit(&mut self, service: &str, name: &str) -> Result<String, String> {
        let all: usize = self.kept.values().map(Vec::len).sum();
        if all >= ALL_MAX {
            return Err(format!("{ALL_MAX} of all services are kept already"));
        }
        let own = self.kept.entry(service.to_owned()).or_default();
        if own.len() >= STORED_DESCRIPTORS_MAX {
            return Err(format!("{STORED_DESCRIPTORS_MAX} of this service are kept already"));
        }
        if own.len() >= SHARE && all >= FREE_FOR_ALL_MAX {
            return Err(format!(
                "{SHARE} of this service are kept already, its share while {FREE_FOR_ALL_MAX} of all services are"
            ));
        }
        self.next += 1;
        own.push(Kept { number: self.next, name: name.to_owned() });
        Ok(stored_name(service, self.next))
    }

    /// Those of this name, or all.
    pub(super) fn forget(&mut self, keeper: &Keeper, service: &str, name: Option<&str>) {
        for stored in self.remove(service, name) {
            let done = keeper.forget(&stored);
            tokio::spawn(async move {
                if let Err(error) = done.await {
                    tracing::warn!(%error, stored, "the keeper holds on to a descriptor");
                }
            });
        }
    }

    fn remove(&mut self, service: &str, name: Option<&str>) -> Vec<String> {
        let Some(own) = self.kept.get_mut(service) else { return Vec::new() };
        let is_meant = |kept: &Kept| name.is_none_or(|name| kept.name == name);
        let gone = own.iter().filter(|kept| is_meant(kept)).map(|kept| stored_name(service, kept.number));
        let gone = gone.collect();
        own.retain(|kept| !is_meant(kept));
        if own.is_empty() {
            self.kept.remove(service);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_names_take_all_of_theirs_away() {
        let mut store = FdStore::default();
        for _ in 0..STORED_DESCRIPTORS_MAX {
            store.admit("mine", "a").unwrap();
        }
        assert!(store.admit("mine", "a").unwrap_err().contains("this service"));
        assert_eq!(store.admit("yours", "b"), Ok("fd:yours:17".to_owned()));
        assert_eq!(
            store.handed_over("yours"),
            [HandedOver { stored: "fd:yours:17".into(), name: "b".into() }]
        );
        assert_eq!(store.remove("mine", Some("b")), Vec::<String>::new());
        assert_eq!(store.remove("mine", Some("a")).len(), STORED_DESCRIPTORS_MAX);
        assert_eq!(store.handed_over("mine"), []);
        assert_eq!(store.remove("yours", None), ["fd:yours:17"]);
        // Some take all that they may, and there is still something for the others.
        for number in 0..FREE_FOR_ALL_MAX {
            store.admit(&format!("s{}", number / STORED_DESCRIPTORS_MAX), "c").unwrap();
        }
        for number in 0..ALL_MAX - FREE_FOR_ALL_MAX {
            let other = format!("t{}", number / SHARE);
            store.admit(&other, "c").unwrap();
            if number == SHARE - 1 {
                assert!(store.admit(&other, "c").unwrap_err().contains("its share"));
            }
        }
        assert!(store.admit("one-more", "c").unwrap_err().contains("all services"));
    }
}
