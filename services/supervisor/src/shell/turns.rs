//! One change of a service's manifest at a time.
//!
//! A change opens what the new manifest needs, has the machine take it, and lets go of what the service does not need any
//! more. Two of them in between each other would let go of what the other has just opened. Nobody is kept longer than by
//! the machine, which begins no second start while the first goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::core::supervisor::{SupervisorError, WAITERS_MAX};

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// By service; those that nobody holds or waits for are let go.
    taken: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Turns {
    /// Waits until nobody else changes this service; for as long as the guard lives nobody will.
    pub(super) async fn take(&self, service: &str) -> Result<OwnedMutexGuard<()>, SupervisorError> {
        let turn = {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.retain(|_, turn| Arc::strong_count(turn) > 1);
            let turn = Arc::clone(taken.entry(service.to_owned()).or_default());
            // The map's own, this one, and that of who holds it.
            if Arc::strong_count(&turn) > WAITERS_MAX + 2 {
                return Err(SupervisorError::Busy { what: "changes of one service", limit: WAITERS_MAX });
            }
            turn
        };
        Ok(turn.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn one_at_a_time_for_each_service_and_a_limit_on_who_waits() {
        let turns = Turns::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut poll =
            |future: &mut std::pin::Pin<Box<dyn Future<Output = _>>>| future.as_mut().poll(&mut context);
        let ask = |name: &'static str| -> std::pin::Pin<Box<dyn Future<Output = _>>> {
            let turns = turns.clone();
            Box::pin(async move { turns.take(name).await })
        };
        let Poll::Ready(Ok(first)) = poll(&mut ask("mine")) else { panic!("nobody else is there") };
        assert!(matches!(poll(&mut ask("yours")), Poll::Ready(Ok(_))), "another service");
        let mut second = ask("mine");
        assert!(poll(&mut second).is_pending());
        let mut others: Vec<_> = (1..WAITERS_MAX).map(|_| ask("mine")).collect();
        others.iter_mut().for_each(|other| assert!(poll(other).is_pending()));
        assert!(matches!(poll(&mut ask("mine")), Poll::Ready(Err(SupervisorError::Busy { .. }))));
        drop(others);
        drop(first);
        assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
        drop(second);
        drop(poll(&mut ask("other")));
        assert_eq!(turns.taken.lock().unwrap().len(), 1, "what nobody wants is not kept");
    }
}
