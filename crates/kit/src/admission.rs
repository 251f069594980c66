//! Admission: health gate, calls in flight and a bounded queue for each cost class. Full means `Busy` at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{error::KitError, phase::Phase, table::Cost};

/// How many calls of one cost class run at once, and how many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimit {
    pub running_max: usize,
    pub queued_max: usize,
    /// What a refused caller is told to wait, in milliseconds: about the time in which the queue empties.
    pub retry_after_ms: u32,
}

/// Limits of one service. The defaults suit a node of two cores; a service may name its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub light: ClassLimit,
    pub medium: ClassLimit,
    pub heavy: ClassLimit,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        // Answered from memory: the queue is for the moment in which a fold holds the lock.
        light: ClassLimit { running_max: 512, queued_max: 1024, retry_after_ms: 10 },
        // A commit groups as many acts as wait, so many at once are cheap.
        medium: ClassLimit { running_max: 512, queued_max: 512, retry_after_ms: 50 },
        // Processes and scans compete for the cores themselves.
        heavy: ClassLimit { running_max: 16, queued_max: 64, retry_after_ms: 500 },
    };
}

/// What admission says to one call. `RequireChallenge` exists on the network alone, never here (ADM-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    Allow,
    /// A slot will come free; the queue has room.
    Wait,
    Deny(KitError),
}

/// The decision, from telemetry alone: the same numbers give the same directive (ADM-09).
#[must_use]
pub fn decide(
    service: &'static str,
    phase: Phase,
    running: usize,
    queued: usize,
    limit: ClassLimit,
) -> Directive {
    match phase {
        Phase::Initializing | Phase::Initialized => Directive::Deny(KitError::NotReady { service }),
        Phase::Draining | Phase::Ended => Directive::Deny(KitError::Draining { service }),
        Phase::Serving if running < limit.running_max && queued == 0 => Directive::Allow,
        Phase::Serving if queued < limit.queued_max => Directive::Wait,
        Phase::Serving => Directive::Deny(KitError::Busy {
            what: "the queue of this class of operations",
            limit: limit.queued_max,
            retry_after_ms: limit.retry_after_ms,
        }),
    }
}

#[derive(Debug)]
struct Class {
    limit: ClassLimit,
    running: Arc<Semaphore>,
    queued: AtomicUsize,
}

impl Class {
    fn new(limit: ClassLimit) -> Self {
        Self { limit, running: Arc::new(Semaphore::new(limit.running_max)), queued: AtomicUsize::new(0) }
    }
}

/// Gives the place in the queue back even if the waiting call is cancelled.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A slot; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub struct Admission {
    service: &'static str,
    light: Class,
    medium: Class,
    heavy: Class,
}

impl Admission {
    #[must_use]
    pub fn new(service: &'static str, limits: Limits) -> Self {
        Self {
            service,
            light: Class::new(limits.light),
            medium: Class::new(limits.medium),
            heavy: Class::new(limits.heavy),
        }
    }

    fn class(&self, cost: Cost) -> &Class {
        match cost {
            Cost::Light => &self.light,
            Cost::Medium => &self.medium,
            Cost::Heavy => &self.heavy,
        }
    }

    /// Lets a call in, makes it wait its turn, or refuses it.
    pub async fn admit(&self, phase: Phase, cost: Cost) -> Result<Slot, KitError> {
        let class = self.class(cost);
        let running = class.limit.running_max.saturating_sub(class.running.available_permits());
        // Entered before the decision, so that callers on other threads are counted; left by the guard.
        let queued = class.queued.fetch_add(1, Ordering::AcqRel);
        let place = Queued(&class.queued);
        match decide(self.service, phase, running, queued, class.limit) {
            Directive::Deny(error) => return Err(error),
            Directive::Allow | Directive::Wait => {}
        }
        let permit = Arc::clone(&class.running).acquire_owned().await.map_err(|_| KitError::HandlerDied)?;
        drop(place);
        Ok(Slot { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: ClassLimit = ClassLimit { running_max: 2, queued_max: 3, retry_after_ms: 7 };

    /// covers: ADM-09, ADM-19
    #[test]
    fn one_directive_follows_from_the_numbers() {
        let says = |phase, running, queued| decide("keys", phase, running, queued, LIMIT);
        let busy =
            KitError::Busy { what: "the queue of this class of operations", limit: 3, retry_after_ms: 7 };
        assert_eq!(says(Phase::Serving, 1, 0), Directive::Allow);
        assert_eq!(says(Phase::Serving, 2, 0), Directive::Wait);
        assert_eq!(says(Phase::Serving, 1, 1), Directive::Wait, "nobody overtakes the queue");
        assert_eq!(says(Phase::Serving, 2, 2), Directive::Wait);
        assert_eq!(says(Phase::Serving, 2, 3), Directive::Deny(busy));
        for phase in [Phase::Initializing, Phase::Initialized] {
            assert_eq!(says(phase, 0, 0), Directive::Deny(KitError::NotReady { service: "keys" }));
        }
        for phase in [Phase::Draining, Phase::Ended] {
            assert_eq!(says(phase, 0, 0), Directive::Deny(KitError::Draining { service: "keys" }));
        }
    }

    #[tokio::test]
    async fn busy_one_past_the_queue_and_free_again_after() {
        let admission = Arc::new(Admission::new("keys", Limits { heavy: LIMIT, ..Limits::DEFAULT }));
        let mut running = Vec::new();
        for _ in 0..LIMIT.running_max {
            running.push(admission.admit(Phase::Serving, Cost::Heavy).await.unwrap());
        }
        let waiting: Vec<_> = (0..LIMIT.queued_max)
            .map(|_| {
                let admission = Arc::clone(&admission);
                tokio::spawn(async move { admission.admit(Phase::Serving, Cost::Heavy).await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(matches!(
            admission.admit(Phase::Serving, Cost::Heavy).await,
            Err(KitError::Busy { limit: 3, retry_after_ms: 7, .. })
        ));
        assert!(admission.admit(Phase::Serving, Cost::Light).await.is_ok(), "classes do not share");
        running.clear();
        for task in waiting {
            assert!(task.await.unwrap());
        }
        assert!(admission.admit(Phase::Serving, Cost::Heavy).await.is_ok());
    }

    #[tokio::test]
    async fn a_cancelled_wait_gives_its_place_back() {
        let admission = Admission::new(
            "keys",
            Limits {
                heavy: ClassLimit { running_max: 1, queued_max: 1, retry_after_ms: 1 },
                ..Limits::DEFAULT
            },
        );
        let slot = admission.admit(Phase::Serving, Cost::Heavy).await.unwrap();
        let wait = std::time::Duration::from_millis(5);
        assert!(tokio::time::timeout(wait, admission.admit(Phase::Serving, Cost::Heavy)).await.is_err());
        drop(slot);
        assert!(admission.admit(Phase::Serving, Cost::Heavy).await.is_ok());
    }
}
