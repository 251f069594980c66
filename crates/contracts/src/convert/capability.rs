use base::{AxiomTime, DurationNs};
use chain::payload::capability as log;

use super::{ConvertError, from_name, to_name};
use crate::capability_service::v1 as pb;

impl TryFrom<&pb::Resource> for log::Resource {
    type Error = ConvertError;

    fn try_from(r: &pb::Resource) -> Result<Self, ConvertError> {
        Ok(Self { object_type: from_name("object_type", &r.object_type)?, object_id: r.object_id.clone() })
    }
}

impl From<&log::Resource> for pb::Resource {
    fn from(r: &log::Resource) -> Self {
        Self { object_type: to_name(&r.object_type), object_id: r.object_id.clone() }
    }
}

impl From<&pb::Permissions> for log::Permissions {
    fn from(p: &pb::Permissions) -> Self {
        Self { read: p.read, write: p.write, execute: p.execute, delegate: p.delegate, revoke: p.revoke }
    }
}

impl From<log::Permissions> for pb::Permissions {
    fn from(p: log::Permissions) -> Self {
        Self { read: p.read, write: p.write, execute: p.execute, delegate: p.delegate, revoke: p.revoke }
    }
}

impl From<&pb::Restrictions> for log::Restrictions {
    fn from(r: &pb::Restrictions) -> Self {
        let time = log::TimeRestriction {
            not_before: r.not_before_ns.map(AxiomTime),
            not_after: r.not_after_ns.map(AxiomTime),
            time_of_day: r.day_from_s.zip(r.day_to_s),
        };
        let time = (time != log::TimeRestriction::default()).then_some(time);
        let rate_limit = r
            .rate_count
            .zip(r.rate_window_ns)
            .map(|(count, window)| log::RateLimit { count, window: DurationNs(window) });
        Self { time, rate_limit, context: r.context.iter().map(|(k, v)| (k.clone(), v.clone())).collect() }
    }
}

impl From<&log::Restrictions> for pb::Restrictions {
    fn from(r: &log::Restrictions) -> Self {
        Self {
            not_before_ns: r.time.as_ref().and_then(|t| t.not_before).map(|t| t.0),
            not_after_ns: r.time.as_ref().and_then(|t| t.not_after).map(|t| t.0),
            rate_count: r.rate_limit.map(|l| l.count),
            rate_window_ns: r.rate_limit.map(|l| l.window.0),
            context: r.context.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            day_from_s: r.time.as_ref().and_then(|t| t.time_of_day).map(|(from, _)| from),
            day_to_s: r.time.as_ref().and_then(|t| t.time_of_day).map(|(_, to)| to),
        }
    }
}
