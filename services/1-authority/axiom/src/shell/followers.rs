//! Who follows the log, and how far each has folded it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, watch};

#[derive(Clone, Copy, Debug)]
struct Progress {
    folded: Option<u64>,
    /// Highest sequence that its next process need not ask for.
    saved: Option<u64>,
    /// A follower that connects again before its old connection has ended has two for a moment.
    connections: u32,
}

/// Followers by the name of their channel.
#[derive(Default)]
pub(super) struct Followers {
    progress: Mutex<BTreeMap<Arc<str>, Progress>>,
    changed: Notify,
    /// The highest sequence that somebody waits for until all have folded it.
    awaited: watch::Sender<u64>,
    /// How often followers were asked to write their folds down.
    save_asked: AtomicU64,
}

impl Followers {
    /// Asks all followers to write their folds down.
    pub(super) fn ask_save(&self) {
        self.save_asked.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn save_asked(&self) -> u64 {
        self.save_asked.load(Ordering::Acquire)
    }

    pub(super) fn saved(&self, name: &str, sequence: u64) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.saved = Some(entry.saved.map_or(sequence, |known| known.max(sequence)));
        }
    }

    /// Of these and of all that follow, those that have not written down that they folded this entry.
    pub(super) fn unsaved(&self, wanted: &BTreeSet<String>, sequence: u64) -> Vec<String> {
        let progress = self.lock();
        let mut names: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        names.extend(progress.keys().map(|name| &**name));
        let has = |name: &&str| {
            progress.get(*name).and_then(|entry| entry.saved).is_some_and(|saved| saved >= sequence)
        };
        names.into_iter().filter(|name| !has(name)).map(str::to_owned).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, name: &Arc<str>) {
        let mut progress = self.lock();
        let entry = progress.entry(Arc::clone(name)).or_insert(Progress {
            folded: None,
            saved: None,
            connections: 0,
        });
        // It folds from its beginning again: what an earlier process had folded says nothing.
        entry.folded = None;
        entry.saved = None;
        entry.connections = entry.connections.saturating_add(1);
    }

    pub(super) fn leave(&self, name: &str) {
        let mut progress = self.lock();
        if let Some(entry) = progress.get_mut(name) {
            entry.connections = entry.connections.saturating_sub(1);
            if entry.connections == 0 {
                progress.remove(name);
            }
        }
        drop(progress);
        self.changed.notify_waiters();
    }

    pub(super) fn folded(&self, name: &str, sequence: u64) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.folded = Some(entry.folded.map_or(sequence, |known| known.max(sequence)));
        }
        self.changed.notify_waiters();
    }

    /// Those that have not folded this entry. One that is not connected serves nobody: it folds before it starts.
    pub(super) fn behind(&self, sequence: u64) -> Vec<String> {
        let progress = self.lock();
        let behind = progress.iter().filter(|(_, entry)| entry.folded.is_none_or(|folded| folded < sequence));
        behind.map(|(name, _)| name.to_string()).collect()
    }

    pub(super) fn awaited(&self) -> watch::Receiver<u64> {
        self.awaited.subscribe()
    }

    /// Waits until nobody is behind; names those that are when the time is over.
    pub(super) async fn wait(&self, sequence: u64, timeout: std::time::Duration) -> Vec<String> {
        // Those who want none of the entries up to there are told of them at once.
        self.awaited.send_if_modified(|awaited| {
            let is_more = sequence > *awaited;
            *awaited = sequence.max(*awaited);
            is_more
        });
        let all = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before looking, so that no change in between is missed.
                changed.as_mut().enable();
                if self.behind(sequence).is_empty() {
                    return;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(timeout, all).await {
            Ok(()) => Vec::new(),
            Err(_) => self.behind(sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn laggards_are_named_and_those_who_leave_are_not_waited_for() {
        let followers = Followers::default();
        let (keys, policy): (Arc<str>, Arc<str>) = ("keys".into(), "policy".into());
        followers.join(&keys);
        followers.join(&policy);
        followers.folded("keys", 9);
        assert_eq!(followers.wait(9, Duration::from_millis(5)).await, ["policy"]);
        followers.folded("policy", 8);
        assert_eq!(followers.behind(9), ["policy"]);
        followers.leave("policy");
        assert_eq!(followers.wait(9, Duration::from_secs(5)).await, Vec::<String>::new());
        // A new process of the same name starts from nothing.
        followers.join(&keys);
        assert_eq!(followers.behind(1), ["keys"]);
        followers.leave("keys");
        assert_eq!(followers.behind(1), ["keys"], "its second connection is still there");
    }

    #[test]
    fn who_has_not_written_its_fold_down_is_named_whether_it_follows_or_not() {
        let followers = Followers::default();
        let (keys, policy): (Arc<str>, Arc<str>) = ("keys".into(), "policy".into());
        followers.join(&keys);
        followers.join(&policy);
        followers.saved("keys", 7);
        followers.saved("keys", 6);
        let wanted = BTreeSet::from(["keys".to_owned(), "network".to_owned()]);
        assert_eq!(followers.unsaved(&wanted, 7), ["network", "policy"]);
        assert_eq!(followers.unsaved(&wanted, 8), ["keys", "network", "policy"]);
        // What an earlier process wrote down may have been removed since.
        followers.join(&keys);
        assert_eq!(followers.unsaved(&wanted, 7), ["keys", "network", "policy"]);
    }

    #[tokio::test]
    async fn a_wait_ends_as_soon_as_the_last_one_has_folded() {
        let followers = Arc::new(Followers::default());
        let name: Arc<str> = "keys".into();
        followers.join(&name);
        let waiting = tokio::spawn({
            let followers = Arc::clone(&followers);
            async move { followers.wait(3, Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        followers.folded("keys", 3);
        assert_eq!(waiting.await.unwrap(), Vec::<String>::new());
    }
}
