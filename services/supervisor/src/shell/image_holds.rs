//! Container images between two who do not see each other: a manifest that is being taken in holds its image, so that it is not
//! removed before the service is registered; and who removes one closes it, so that no service is taken in meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::TreeId;

use crate::core::supervisor::SupervisorError;

#[derive(Debug)]
enum Use {
    /// By these services, whose manifests are being taken in.
    Held(Vec<String>),
    /// By so many who remove it: one that has gone may not have been noticed yet when it asks again.
    Closed(u32),
}

type Uses = BTreeMap<TreeId, Use>;

#[derive(Clone, Debug, Default)]
pub(super) struct ImageHolds(Arc<Mutex<Uses>>);

/// As long as it lives, its image is not removed.
#[derive(Debug)]
pub(super) struct Held {
    holds: ImageHolds,
    tree: TreeId,
    service: String,
}

/// As long as it lives, no service is taken in that runs in the image.
#[derive(Debug)]
pub(super) struct Closed {
    holds: ImageHolds,
    tree: TreeId,
}

impl ImageHolds {
    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, tree: TreeId, service: &str) -> Result<Held, SupervisorError> {
        match self.uses().entry(tree).or_insert_with(|| Use::Held(Vec::new())) {
            // As many as manifests are taken in at once.
            Use::Held(services) => services.push(service.to_owned()),
            Use::Closed(_) => {
                return Err(SupervisorError::Unavailable(format!(
                    "image {tree} is being removed; once it is gone, import it again"
                )));
            }
        }
        Ok(Held { holds: self.clone(), tree, service: service.to_owned() })
    }

    /// Or the services that hold it.
    pub(super) fn close(&self, tree: TreeId) -> Result<Closed, Vec<String>> {
        match self.uses().entry(tree).or_insert(Use::Closed(0)) {
            Use::Held(services) => return Err(services.clone()),
            Use::Closed(times) => *times = times.saturating_add(1),
        }
        Ok(Closed { holds: self.clone(), tree })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut uses = self.holds.uses();
        if let Some(Use::Held(services)) = uses.get_mut(&self.tree) {
            if let Some(place) = services.iter().position(|service| *service == self.service) {
                services.swap_remove(place);
            }
            if services.is_empty() {
                uses.remove(&self.tree);
            }
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut uses = self.holds.uses();
        match uses.get_mut(&self.tree) {
            Some(Use::Closed(times)) if *times > 1 => *times -= 1,
            Some(Use::Closed(_)) => drop(uses.remove(&self.tree)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: TreeId = TreeId([7; 32]);

    #[test]
    fn what_is_held_is_not_closed_and_what_is_closed_is_not_held() {
        let holds = ImageHolds::default();
        let (web, same, api) = (
            holds.hold(TREE, "web").unwrap(),
            holds.hold(TREE, "web").unwrap(),
            holds.hold(TREE, "api").unwrap(),
        );
        assert_eq!(holds.close(TREE).unwrap_err(), ["web", "web", "api"]);
        drop(web);
        drop(api);
        assert_eq!(holds.close(TREE).unwrap_err(), ["web"]);
        assert!(holds.close(TreeId([8; 32])).is_ok());
        drop(same);
        let closed = holds.close(TREE).unwrap();
        let again = holds.close(TREE).unwrap();
        drop(closed);
        assert!(holds.hold(TREE, "web").unwrap_err().to_string().contains("is being removed"));
        drop(again);
        assert!(holds.hold(TREE, "web").is_ok());
        assert!(holds.uses().is_empty());
    }
}
