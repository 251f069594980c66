//! When, how often and where, as people write it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use chain::payload::capability::{Restrictions, TimeRestriction};
use contracts::capability_service::v1 as pb;

use crate::{args::Limits, output, units::parse_duration_ms};

const MS_NS: u64 = 1_000_000;

/// None where nothing is limited; an end is told apart from this.
pub(super) fn restrictions(limits: &Limits) -> Result<Option<pb::Restrictions>> {
    let hours = limits.hours.as_deref().map(parse_hours).transpose()?;
    let rate = limits.rate.as_deref().map(parse_rate).transpose()?;
    let all = pb::Restrictions {
        not_before_ns: None,
        not_after_ns: None,
        rate_count: rate.map(|(count, _)| count),
        rate_window_ns: rate.map(|(_, window)| window),
        context: pairs(&limits.context)?,
        day_from_s: hours.map(|(from, _)| from),
        day_to_s: hours.map(|(_, to)| to),
    };
    Ok((all != pb::Restrictions::default()).then_some(all))
}

pub(super) fn nanoseconds(text: &str) -> Result<u64> {
    parse_duration_ms(text)?.checked_mul(MS_NS).with_context(|| format!("{text:?} is too long"))
}

pub(super) fn pairs(texts: &[String]) -> Result<HashMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("{text:?} is no KEY=VALUE"),
    };
    texts.iter().map(pair).collect()
}

/// `10/60s`: ten uses in any sixty seconds.
fn parse_rate(text: &str) -> Result<(u32, u64)> {
    let wrong = || format!("{text:?} is no rate; write for example 10/60s");
    let (count, window) = text.split_once('/').with_context(wrong)?;
    Ok((count.parse().with_context(wrong)?, nanoseconds(window).with_context(wrong)?))
}

/// `08:00-16:30`, in seconds of the day.
fn parse_hours(text: &str) -> Result<(u32, u32)> {
    let wrong = || format!("{text:?} are no hours; write for example 08:00-16:30");
    let second = |text: &str| -> Option<u32> {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute) = (hour.parse::<u32>().ok()?, minute.parse::<u32>().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 3_600 + minute * 60)
    };
    let (from, to) = text.split_once('-').with_context(wrong)?;
    second(from).zip(second(to)).with_context(wrong)
}

/// For a cell of a table.
pub(super) fn text(restrictions: &Restrictions) -> String {
    let TimeRestriction { not_before, not_after, time_of_day } =
        restrictions.time.clone().unwrap_or_default();
    let hour = |second: u32| format!("{:02}:{:02}", second / 3_600, second % 3_600 / 60);
    let rate = restrictions
        .rate_limit
        .map(|rate| format!("{}/{}", rate.count, output::duration(rate.window.0 / MS_NS).replace(' ', "")));
    let parts = [
        not_before.map(|time| format!("from {}", time.0)),
        not_after.map(|time| format!("until {}", time.0)),
        time_of_day.map(|(from, to)| format!("{}-{}", hour(from), hour(to))),
        rate,
    ];
    let context = restrictions.context.iter().map(|(key, value)| format!("{key}={value}"));
    parts.into_iter().flatten().chain(context).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rate: Option<&str>, hours: Option<&str>, context: &[&str]) -> Limits {
        Limits {
            expires_in: None,
            hours: hours.map(str::to_owned),
            rate: rate.map(str::to_owned),
            context: context.iter().map(|pair| (*pair).to_owned()).collect(),
        }
    }

    #[test]
    fn limits_are_read_and_shown() {
        assert_eq!(restrictions(&limits(None, None, &[])).unwrap(), None);
        let all = restrictions(&limits(Some("10/60s"), Some("08:00-16:30"), &["room=1=2"])).unwrap().unwrap();
        assert_eq!((all.rate_count, all.rate_window_ns), (Some(10), Some(60_000_000_000)));
        assert_eq!((all.day_from_s, all.day_to_s), (Some(28_800), Some(59_400)));
        assert_eq!(text(&Restrictions::from(&all)), "08:00-16:30 10/1min room=1=2");
        for (rate, hours, context) in [
            (Some("10"), None, &[][..]),
            (Some("-1/1s"), None, &[]),
            (Some("1/soon"), None, &[]),
            (None, Some("8-16"), &[]),
            (None, Some("08:00-24:00"), &[]),
            (None, Some("08:60-09:00"), &[]),
            (None, None, &["room"]),
            (None, None, &["=1"]),
        ] {
            assert!(restrictions(&limits(rate, hours, context)).is_err(), "{rate:?} {hours:?} {context:?}");
        }
    }
}
