//! What a request becomes: checks that need no one, then the entry that policy is asked for.

use std::collections::BTreeMap;

use base::{AxiomTime, CapabilityId, IdentityId};
use chain::payload::capability::{
    CapabilityGrant, Permissions, RateLimit, Resource, Restrictions, TimeRestriction,
};

use super::{CapabilityError, Granted, Holdings};

/// Bytes of an object's id: policy knows it as `type:id`, in 4 096 bytes, and the longest type is `endpoint`.
pub const OBJECT_ID_BYTES_MAX: usize = 4096 - "endpoint:".len();
/// Bytes of a reason; it is kept for ever.
pub const REASON_BYTES_MAX: usize = 256;
/// Capabilities from one to its root, both included: a use looks at each of them, a message shows them all.
pub const CHAIN_LENGTH_MAX: usize = 256;
/// Uses that one rate permits in its window: so many times are kept for each capability with a rate.
pub const RATE_COUNT_MAX: u32 = 1024;
/// A rate's window, one hour: so long a right may be refused after this service was started anew.
pub const RATE_WINDOW_NS_MAX: u64 = 3_600_000_000_000;
/// Live capabilities with a rate: at most 32 MiB of times.
pub const RATED_MAX: usize = 4096;
/// Live capabilities. Every service folds each of them: some 150 bytes, so at most 40 MiB of what a service may have.
pub const LIVE_MAX: usize = 262_144;
/// Bytes of their object ids, which this service and axiom keep.
pub const NAME_BYTES_MAX: usize = 32 << 20;
/// What one capability or one use says of its context.
pub const CONTEXT_PAIRS_MAX: usize = 16;
pub const CONTEXT_KEY_BYTES_MAX: usize = 64;
pub const CONTEXT_VALUE_BYTES_MAX: usize = 256;
/// Seconds of a day.
const DAY_S: u32 = 86_400;

/// What is asked for; `grantor` is proved by the shell, `capability` is random, from the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub capability: CapabilityId,
    pub grantor: IdentityId,
    pub grantee: IdentityId,
    pub resource: Resource,
    pub permissions: Permissions,
    pub restrictions: Option<Restrictions>,
    /// Another way to say `not_after`; the earlier one counts (CAP open point 4).
    pub expires_at: Option<AxiomTime>,
}

/// The grant that policy is to be asked for. A grantor who holds a right on the object passes on a part of it; `makes_new`
/// is one who makes rights from nothing whatever is held (the admin), and so is one who holds none, if policy agrees.
pub fn plan_grant(
    holdings: &Holdings,
    wish: Wish,
    grantee_is_active: bool,
    makes_new: bool,
    now: AxiomTime,
) -> Result<CapabilityGrant, CapabilityError> {
    let id = &wish.resource.object_id;
    if id.is_empty() || id.len() > OBJECT_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(CapabilityError::ObjectId { bytes: id.len() });
    }
    if wish.permissions.is_empty() {
        return Err(CapabilityError::NoPermission);
    }
    if !grantee_is_active {
        return Err(CapabilityError::UnknownIdentity(wish.grantee));
    }
    let source = if makes_new { None } else { source(holdings, &wish, now)? };
    if let Some(source) = source {
        check_length(holdings, source)?;
    }
    let asked = restrictions(wish.restrictions, wish.expires_at)?;
    let restrictions = within(asked, source.and_then(|source| source.grant.restrictions.as_ref()))?;
    if let Some(time) = &restrictions.time {
        check_time(time, now)?;
    }
    check_rated(holdings, &restrictions)?;
    check_room(holdings, &wish.resource)?;
    let restrictions = (restrictions != Restrictions::default()).then_some(restrictions);
    Ok(CapabilityGrant {
        capability_id: wish.capability,
        grantor: wish.grantor,
        grantee: wish.grantee,
        resource: wish.resource,
        permissions: wish.permissions,
        restrictions,
        parent: source.map(|granted| granted.grant.capability_id),
    })
}

/// What is to be passed on; `capability` is the new one's id, random, from the shell; `by` is proved by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegation {
    pub capability: CapabilityId,
    pub source: CapabilityId,
    pub by: IdentityId,
    pub to: IdentityId,
    pub permissions: Permissions,
}

/// The grant that policy is to be asked for: a part of what the caller holds, on the same object, with the same limits.
pub fn plan_delegation(
    holdings: &Holdings,
    wish: Delegation,
    to_is_active: bool,
    now: AxiomTime,
) -> Result<CapabilityGrant, CapabilityError> {
    let held = holdings.get(&wish.source).filter(|granted| granted.grant.grantee == wish.by);
    let source = held.ok_or(CapabilityError::NotHolder(wish.source))?;
    if wish.permissions.is_empty() {
        return Err(CapabilityError::NoPermission);
    }
    if !source.grant.permissions.delegate {
        return Err(CapabilityError::CannotDelegate);
    }
    if !source.grant.permissions.contains(wish.permissions) {
        return Err(CapabilityError::CannotAmplify);
    }
    if !to_is_active {
        return Err(CapabilityError::UnknownIdentity(wish.to));
    }
    if let Some(time) = time_of(source) {
        check_time(&time, now)?;
    }
    check_length(holdings, source)?;
    check_room(holdings, &source.grant.resource)?;
    let restrictions = source.grant.restrictions.clone();
    check_rated(holdings, restrictions.as_ref().unwrap_or(&Restrictions::default()))?;
    Ok(CapabilityGrant {
        capability_id: wish.capability,
        grantor: wish.by,
        grantee: wish.to,
        resource: source.grant.resource.clone(),
        permissions: wish.permissions,
        restrictions,
        parent: Some(wish.source),
    })
}

/// Room for one more below this one.
fn check_length(holdings: &Holdings, source: &Granted) -> Result<(), CapabilityError> {
    let length = holdings.chain(&source.grant.capability_id).take(CHAIN_LENGTH_MAX).count();
    if length < CHAIN_LENGTH_MAX { Ok(()) } else { Err(CapabilityError::ChainLength) }
}

fn check_rated(holdings: &Holdings, restrictions: &Restrictions) -> Result<(), CapabilityError> {
    match restrictions.rate_limit {
        Some(_) if holdings.rated() >= RATED_MAX => Err(CapabilityError::TooManyRates),
        _ => Ok(()),
    }
}

/// Room for one more on this object.
fn check_room(holdings: &Holdings, resource: &Resource) -> Result<(), CapabilityError> {
    let fits = holdings.live() < LIVE_MAX
        && holdings.name_bytes().saturating_add(resource.object_id.len()) <= NAME_BYTES_MAX;
    if fits { Ok(()) } else { Err(CapabilityError::Full) }
}

/// The capability and all above it, for those whose business it is (CAP-18).
pub fn check_chain<'a>(
    holdings: &'a Holdings,
    id: &'a CapabilityId,
    by: IdentityId,
    sees_all: bool,
) -> Result<impl Iterator<Item = &'a Granted>, CapabilityError> {
    let is_of = |granted: &&Granted| granted.grant.grantee == by || granted.grant.grantor == by;
    holdings.get(id).filter(|granted| sees_all || is_of(granted)).ok_or(CapabilityError::NotFound(*id))?;
    Ok(holdings.chain(id))
}

/// The capability of the grantor's that the new one is derived from (CAP-25, CAP-26, CAP-28).
fn source<'a>(
    holdings: &'a Holdings,
    wish: &Wish,
    now: AxiomTime,
) -> Result<Option<&'a Granted>, CapabilityError> {
    let is_live = |granted: &&Granted| {
        granted.grant.resource == wish.resource
            && time_of(granted).is_none_or(|time| check_time(&time, now).is_ok())
    };
    let mut refusal = None;
    for granted in holdings.held_by(&wish.grantor).filter(is_live) {
        let held = granted.grant.permissions;
        match (held.delegate, held.contains(wish.permissions)) {
            (true, true) => return Ok(Some(granted)),
            (true, false) => refusal = Some(CapabilityError::CannotAmplify),
            (false, _) => refusal = refusal.or(Some(CapabilityError::CannotDelegate)),
        }
    }
    refusal.map_or(Ok(None), Err)
}

fn time_of(granted: &Granted) -> Option<TimeRestriction> {
    granted.grant.restrictions.as_ref().and_then(|restrictions| restrictions.time.clone())
}

/// What is asked for, with the earlier of both ends.
fn restrictions(
    asked: Option<Restrictions>,
    expires_at: Option<AxiomTime>,
) -> Result<Restrictions, CapabilityError> {
    let Restrictions { time, rate_limit, context } = asked.unwrap_or_default();
    let mut time = time.unwrap_or_default();
    time.not_after = earlier(time.not_after, expires_at);
    if let Some((from, to)) = time.time_of_day
        && (from == to || from >= DAY_S || to >= DAY_S)
    {
        return Err(CapabilityError::Restrictions(
            "hours are two different seconds of a day, each below 86 400",
        ));
    }
    if let Some(RateLimit { count, window }) = rate_limit {
        if !(1..=RATE_COUNT_MAX).contains(&count) {
            return Err(CapabilityError::Restrictions("a rate counts 1 to 1 024 uses"));
        }
        if !(1..=RATE_WINDOW_NS_MAX).contains(&window.0) {
            return Err(CapabilityError::Restrictions(
                "a rate's window is one hour at most, and not nothing",
            ));
        }
    }
    check_context(&context)?;
    Ok(Restrictions { time: (time != TimeRestriction::default()).then_some(time), rate_limit, context })
}

/// Of a capability or of a use.
pub fn check_context(context: &BTreeMap<String, String>) -> Result<(), CapabilityError> {
    if context.len() > CONTEXT_PAIRS_MAX {
        return Err(CapabilityError::Restrictions("a context has at most 16 pairs"));
    }
    let fits = |(key, value): (&String, &String)| {
        (1..=CONTEXT_KEY_BYTES_MAX).contains(&key.len()) && value.len() <= CONTEXT_VALUE_BYTES_MAX
    };
    match context.iter().all(fits) {
        true => Ok(()),
        false => {
            Err(CapabilityError::Restrictions("a context's keys have 1 to 64 bytes, its values at most 256"))
        }
    }
}

fn earlier(one: Option<AxiomTime>, other: Option<AxiomTime>) -> Option<AxiomTime> {
    one.into_iter().chain(other).min()
}

/// The part of `asked` that lies within the source's own.
fn within(asked: Restrictions, source: Option<&Restrictions>) -> Result<Restrictions, CapabilityError> {
    let Some(source) = source else { return Ok(asked) };
    let (own, theirs) = (asked.time.unwrap_or_default(), source.time.clone().unwrap_or_default());
    let time = TimeRestriction {
        not_before: own.not_before.into_iter().chain(theirs.not_before).max(),
        not_after: earlier(own.not_after, theirs.not_after),
        time_of_day: theirs.time_of_day.or(own.time_of_day),
    };
    let rate_limit = match (asked.rate_limit, source.rate_limit) {
        (Some(one), Some(other)) => {
            Some(RateLimit { count: one.count.min(other.count), window: one.window.max(other.window) })
        }
        (one, other) => one.or(other),
    };
    let mut context = asked.context;
    for (key, value) in &source.context {
        if context.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
            return Err(CapabilityError::Restrictions(
                "the context contradicts that of the caller's own capability",
            ));
        }
    }
    check_context(&context)?;
    Ok(Restrictions { time: (time != TimeRestriction::default()).then_some(time), rate_limit, context })
}

fn check_time(time: &TimeRestriction, now: AxiomTime) -> Result<(), CapabilityError> {
    let Some(end) = time.not_after else { return Ok(()) };
    if end <= now {
        return Err(CapabilityError::Restrictions("the capability would have expired already"));
    }
    match time.not_before {
        Some(start) if start >= end => Err(CapabilityError::Restrictions("it would end before it begins")),
        _ => Ok(()),
    }
}

/// Who wants to revoke, and what the shell knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoker {
    pub id: IdentityId,
    /// The admin, or the supervisor that withdraws what is misused: policy alone decides.
    pub answers_to_policy_alone: bool,
}

/// The capability, if this identity may ask policy to revoke it (CAP-30). `holds_revoke` tells whether an identity holds
/// the right to revoke on a resource now.
pub fn check_revoke<'a>(
    holdings: &'a Holdings,
    id: &CapabilityId,
    by: Revoker,
    reason: &str,
    holds_revoke: impl FnOnce(&Resource) -> bool,
) -> Result<&'a Granted, CapabilityError> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(CapabilityError::Reason { bytes: reason.len() });
    }
    let granted = holdings.get(id).ok_or(CapabilityError::NotFound(*id))?;
    if by.answers_to_policy_alone || granted.grant.grantor == by.id || holds_revoke(&granted.grant.resource) {
        return Ok(granted);
    }
    match granted.grant.grantee == by.id {
        true => Err(CapabilityError::CannotRevoke(*id)),
        false => Err(CapabilityError::NotFound(*id)),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
