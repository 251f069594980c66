//! Ends a node that nobody uses any more; only where `up --idle-stop` asked for it.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{
    inputs::{Inbox, Input},
    run::now,
};
use crate::core::{
    idle::{Idle, Use},
    supervisor::{Event, Supervisor},
};

/// Watches until the time has come, then asks for an ordered shutdown.
pub(super) fn watch(
    limit: Duration,
    mut uses: mpsc::UnboundedReceiver<Use>,
    inbox: Inbox,
    inputs: mpsc::UnboundedSender<Input>,
) {
    tokio::spawn(async move {
        let mut idle = Idle::new(limit, now());
        loop {
            let mut left = idle.remaining(now(), false);
            if left.is_zero() {
                // Asked only now: the machine has better things to do than to be asked at each use.
                let Ok(runs) = inbox.view(Supervisor::runs_service_of_user).await else { return };
                left = idle.remaining(now(), runs);
                if left.is_zero() {
                    let reason = format!("not used for {} s", limit.as_secs());
                    let _ = inputs.send(Input::Event(Event::ShutdownRequested { request: None, reason }));
                    return;
                }
            }
            tokio::select! {
                Some(by) = uses.recv() => idle.used(now(), by),
                () = tokio::time::sleep(left) => {}
            }
        }
    });
}
