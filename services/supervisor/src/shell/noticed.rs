//! What the supervisor notices and nobody decides: the wall clock was set, a watched service is late. It goes through policy,
//! as every record that is not one of its own five kinds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, UNIX_EPOCH},
};

use base::IdentityId;
use chain::payload::{
    Body,
    service::{ClockSet, ServiceLate},
};
use kit::authority::{Authority, AuthorityError, Entry};
use tokio::sync::mpsc;

use super::run::Shell;
use crate::core::wall::{Reading, Step};

/// Notices that wait for the log. More than that is told in the supervisor's own log alone.
const WAITING_MAX: usize = 256;
/// Warnings of one service are on record this far apart at least: one that is late all the time must not fill the log.
const LATE_INTERVAL: Duration = Duration::from_secs(60);
/// Between two attempts while the log is down.
const PAUSE: Duration = Duration::from_secs(1);

/// The road of notices. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Notices(mpsc::Sender<Entry>);

impl Notices {
    /// Ends with the runtime.
    pub(super) fn start(authority: Authority) -> Self {
        let (send, mut waiting) = mpsc::channel::<Entry>(WAITING_MAX);
        tokio::spawn(async move {
            while let Some(entry) = waiting.recv().await {
                record(&authority, entry).await;
            }
        });
        Self(send)
    }

    fn add<T: Body>(&self, submitter: IdentityId, body: T) {
        match Entry::record(submitter, body) {
            Ok(entry) => {
                if self.0.try_send(entry).is_err() {
                    tracing::warn!("{WAITING_MAX} notices wait for the log; this one is not on record");
                }
            }
            Err(error) => tracing::error!(%error, "a notice cannot be made"),
        }
    }
}

/// Sent again with the same key until it stands.
async fn record(authority: &Authority, entry: Entry) {
    loop {
        match authority.record(entry.clone()).await {
            Ok(_) => return,
            Err(AuthorityError::Busy { .. } | AuthorityError::Unavailable) => {}
            Err(error) => return tracing::warn!(%error, "a notice was refused by the log"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// When it was last recorded that a service is late.
#[derive(Debug, Default)]
pub(super) struct LateOnes(BTreeMap<String, Instant>);

impl LateOnes {
    /// Whether it is to be recorded again; it counts as recorded then.
    fn is_news(&mut self, service: &str, now: Instant) -> bool {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < LATE_INTERVAL);
        if self.0.contains_key(service) {
            return false;
        }
        self.0.insert(service.to_owned(), now);
        true
    }
}

impl Shell {
    /// Whether the wall clock was set since the last look.
    pub(super) fn look_at_wall(&mut self) {
        let wall = kit::wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        let reading = Reading { wall_ns, boot_ns: kit::boot_time_ns() };
        let before = self.wall;
        if let Some(Step { by_ns, wall_ns }) = self.wall.look(reading) {
            tracing::warn!(
                by_s = by_ns as f64 / 1e9,
                "the wall clock was set; the log's time goes on as before"
            );
            self.notices.add(self.applier.knowledge.own, ClockSet { by_ns, wall_ns });
            self.unremembered = true;
        }
        self.unremembered |= !before.has_begun();
    }

    pub(super) fn late(&mut self, service: String, text: String) {
        if self.late_ones.is_news(&service, Instant::now()) {
            self.notices.add(self.applier.knowledge.own, ServiceLate { name: service, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_late_all_the_time_is_on_record_once_in_a_while() {
        let mut late = LateOnes::default();
        let start = Instant::now();
        assert!(late.is_news("a", start));
        assert!(!late.is_news("a", start + LATE_INTERVAL - Duration::from_nanos(1)));
        assert!(late.is_news("b", start));
        assert!(late.is_news("a", start + LATE_INTERVAL));
    }
}
