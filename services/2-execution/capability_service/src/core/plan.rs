//! What a request becomes: checks that need no one, then the entry that policy is asked for.

use base::{AxiomTime, CapabilityId, IdentityId};
use chain::payload::capability::{CapabilityGrant, Permissions, Resource, Restrictions, TimeRestriction};

use super::{CapabilityError, Granted, Holdings};

/// Bytes of an object's id: policy knows it as `type:id`, in 4 096 bytes, and the longest type is `endpoint`.
pub const OBJECT_ID_BYTES_MAX: usize = 4096 - "endpoint:".len();
/// Bytes of a reason; it is kept for ever.
pub const REASON_BYTES_MAX: usize = 256;

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
    let asked = time(wish.restrictions, wish.expires_at)?;
    let time = within(asked, source.and_then(time_of));
    check_time(&time, now)?;
    let restrictions = (time != TimeRestriction::default())
        .then(|| Restrictions { time: Some(time), ..Restrictions::default() });
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

fn time(
    restrictions: Option<Restrictions>,
    expires_at: Option<AxiomTime>,
) -> Result<TimeRestriction, CapabilityError> {
    let Restrictions { time, rate_limit, context } = restrictions.unwrap_or_default();
    // Nothing counts uses or compares contexts yet: such a right would never be confirmed by any check.
    if rate_limit.is_some() || !context.is_empty() {
        return Err(CapabilityError::Restrictions(
            "no check counts uses or looks at a context yet; restrict the time",
        ));
    }
    let mut time = time.unwrap_or_default();
    time.not_after = earlier(time.not_after, expires_at);
    Ok(time)
}

fn earlier(one: Option<AxiomTime>, other: Option<AxiomTime>) -> Option<AxiomTime> {
    one.into_iter().chain(other).min()
}

/// The part of `asked` that lies within the source's own.
fn within(asked: TimeRestriction, source: Option<TimeRestriction>) -> TimeRestriction {
    let Some(source) = source else { return asked };
    TimeRestriction {
        not_before: asked.not_before.into_iter().chain(source.not_before).max(),
        not_after: earlier(asked.not_after, source.not_after),
        time_of_day: source.time_of_day.or(asked.time_of_day),
    }
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
