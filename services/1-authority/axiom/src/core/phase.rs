/// Where the sequencer stands (AX-42).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the log at the start.
    Recovery,
    Idle,
    Receiving,
    VerifyingPolicy,
    PolicyValid,
    PolicyInvalid,
    Validating,
    Rejected,
    Committing,
    Persisting,
    Notifying,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Recovered,
    /// A unit, or one more of the batch.
    Unit,
    Checked,
    Refused,
    /// Nothing of the batch is left to look at.
    EndOfBatch,
    /// The group is on its way to the disk.
    Written,
    Durable,
    Notified,
}

impl Phase {
    /// The phase after an event; None where the event has no place.
    #[must_use]
    pub const fn next(self, event: Event) -> Option<Self> {
        Some(match (self, event) {
            (Self::Recovery, Event::Recovered) | (Self::Notifying, Event::Notified) => Self::Idle,
            (Self::Idle, Event::Unit) => Self::Receiving,
            (Self::Receiving, Event::Checked) => Self::VerifyingPolicy,
            (Self::VerifyingPolicy, Event::Checked) => Self::PolicyValid,
            (Self::VerifyingPolicy, Event::Refused) => Self::PolicyInvalid,
            (Self::PolicyValid, Event::Checked) => Self::Validating,
            (Self::PolicyInvalid | Self::Receiving | Self::Validating, Event::Refused) => Self::Rejected,
            (Self::Validating, Event::Checked) => Self::Committing,
            // The rest of a batch: each unit is looked at before the group is written.
            (Self::Rejected | Self::Committing, Event::Unit) => Self::Receiving,
            (Self::Rejected, Event::EndOfBatch) => Self::Notifying,
            (Self::Committing | Self::Rejected, Event::Written) => Self::Persisting,
            (Self::Persisting, Event::Durable) => Self::Notifying,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 11] = [
        Phase::Recovery,
        Phase::Idle,
        Phase::Receiving,
        Phase::VerifyingPolicy,
        Phase::PolicyValid,
        Phase::PolicyInvalid,
        Phase::Validating,
        Phase::Rejected,
        Phase::Committing,
        Phase::Persisting,
        Phase::Notifying,
    ];
    const EVENTS: [Event; 8] = [
        Event::Recovered,
        Event::Unit,
        Event::Checked,
        Event::Refused,
        Event::EndOfBatch,
        Event::Written,
        Event::Durable,
        Event::Notified,
    ];

    /// covers: AX-42
    #[test]
    fn nothing_is_validated_before_policy_nor_committed_before_validation() {
        let into = |target: Phase| -> Vec<Phase> {
            let leads = |from: &Phase| EVENTS.iter().any(|event| from.next(*event) == Some(target));
            PHASES.into_iter().filter(leads).collect()
        };
        assert_eq!(into(Phase::Validating), [Phase::PolicyValid]);
        assert_eq!(into(Phase::PolicyValid), [Phase::VerifyingPolicy]);
        assert_eq!(into(Phase::Committing), [Phase::Validating]);
        assert_eq!(into(Phase::Idle), [Phase::Recovery, Phase::Notifying]);
        assert_eq!(into(Phase::Recovery), []);
        let legal =
            PHASES.iter().flat_map(|from| EVENTS.iter().filter_map(|event| from.next(*event))).count();
        assert_eq!(legal, 17);
    }
}
