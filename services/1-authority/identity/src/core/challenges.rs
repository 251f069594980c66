//! Challenges that wait for their answer (IDN-42, IDN-43). They live in memory alone: a restart ends them.

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomTime, CredentialId};

use super::IdentityError;

/// Life of a challenge, in nanoseconds of Axiom time.
pub const CHALLENGE_LIFE_NS: u64 = 60_000_000_000;
/// Challenges that wait at once.
pub const CHALLENGES_MAX: usize = 4096;
/// Of these, so many were asked for on one channel, so that no channel takes them all.
pub const CHALLENGES_PER_CHANNEL_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub id: [u8; 16],
    pub nonce: [u8; 32],
    pub created_at: AxiomTime,
    pub expires_at: AxiomTime,
    pub credential: CredentialId,
    /// The page that a passkey answers for.
    pub origin: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Challenges {
    waiting: BTreeMap<[u8; 16], (Challenge, String)>,
    by_end: BTreeSet<(AxiomTime, [u8; 16])>,
    of_channel: BTreeMap<String, usize>,
}

impl Challenges {
    pub(super) fn issue(
        &mut self,
        now: AxiomTime,
        (credential, origin): (CredentialId, Option<String>),
        channel: &str,
        (id, nonce): ([u8; 16], [u8; 32]),
    ) -> Result<Challenge, IdentityError> {
        while let Some((_, over)) = self.by_end.first().copied().filter(|(end, _)| *end <= now) {
            self.remove(&over);
        }
        let of_channel = self.of_channel.get(channel).copied().unwrap_or(0);
        if of_channel >= CHALLENGES_PER_CHANNEL_MAX {
            return Err(IdentityError::Busy(CHALLENGES_PER_CHANNEL_MAX));
        }
        if self.waiting.len() >= CHALLENGES_MAX || self.waiting.contains_key(&id) {
            return Err(IdentityError::Busy(CHALLENGES_MAX));
        }
        let expires_at = now.saturating_add(CHALLENGE_LIFE_NS);
        let challenge = Challenge { id, nonce, created_at: now, expires_at, credential, origin };
        self.by_end.insert((expires_at, id));
        *self.of_channel.entry(channel.to_owned()).or_default() += 1;
        self.waiting.insert(id, (challenge.clone(), channel.to_owned()));
        Ok(challenge)
    }

    /// Takes the challenge out, whatever the answer is worth: it works once. It must be the one that was issued, in every
    /// part, for this credential and on this channel.
    pub(super) fn redeem(
        &mut self,
        now: AxiomTime,
        answered: &Challenge,
        credential: CredentialId,
        channel: &str,
    ) -> Result<(), IdentityError> {
        match self.remove(&answered.id) {
            Some((issued, to)) if issued == *answered && to == channel && issued.credential == credential => {
                if now < issued.expires_at {
                    Ok(())
                } else {
                    Err(IdentityError::ChallengeExpired)
                }
            }
            _ => Err(IdentityError::ChallengeUnknown),
        }
    }

    fn remove(&mut self, id: &[u8; 16]) -> Option<(Challenge, String)> {
        let (challenge, channel) = self.waiting.remove(id)?;
        self.by_end.remove(&(challenge.expires_at, *id));
        if let Some(count) = self.of_channel.get_mut(&channel) {
            *count -= 1;
            if *count == 0 {
                self.of_channel.remove(&channel);
            }
        }
        Some((challenge, channel))
    }
}
