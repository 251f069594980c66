//! Times of the calendar, against a table, against themselves, and against systemd where that is there.

use std::process::Command;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use proptest::{prelude::*, strategy::ValueTree};
use supervisor::core::calendar::{Calendar, PARTS_MAX, TEXT_BYTES_MAX};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn calendar(text: &str) -> Calendar {
    text.parse().unwrap_or_else(|why| panic!("{why}"))
}

/// The next times after one, in UTC.
fn times(text: &str, after: &str, zone: &TimeZone, count: usize) -> Vec<String> {
    let calendar = calendar(text);
    let mut after = time(after);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(next) = calendar.next(after, zone)
    {
        found.push(next.to_string());
        after = next;
    }
    found
}

#[track_caller]
fn next(text: &str, expected: &[&str]) {
    assert_eq!(times(text, "2026-01-01T00:00:00Z", &TimeZone::UTC, expected.len()), expected, "{text}");
}

#[test]
fn expressions_mean_what_they_mean_to_systemd() {
    next("Mon *-05~07/1", &["2026-05-25T00:00:00Z", "2027-05-31T00:00:00Z", "2028-05-29T00:00:00Z"]);
    next("*-02~03", &["2026-02-26T00:00:00Z", "2027-02-26T00:00:00Z", "2028-02-27T00:00:00Z"]);
    next("*:0/15", &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]);
    next("Mon..Fri 09,17:30", &["2026-01-01T09:30:00Z", "2026-01-01T17:30:00Z", "2026-01-02T09:30:00Z"]);
    next("Mon..Fri *-*-* 06:00", &["2026-01-01T06:00:00Z", "2026-01-02T06:00:00Z", "2026-01-05T06:00:00Z"]);
    next("*-*~07..20/3", &["2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z", "2026-01-19T00:00:00Z"]);
    next("*-*~1,3/2", &["2026-01-29T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-26T00:00:00Z"]);
    next("1..4/2:00", &["2026-01-01T01:00:00Z", "2026-01-01T03:00:00Z", "2026-01-02T01:00:00Z"]);
    next("quarterly", &["2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z"]);
    next("weekly", &["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]);
    next(
        "Sat,Mon-Tue 5:00:30 utc",
        &["2026-01-03T05:00:30Z", "2026-01-05T05:00:30Z", "2026-01-06T05:00:30Z"],
    );
    next("28-2-29 12:00", &["2028-02-29T12:00:00Z"]);
    assert_eq!(times("2026-1-1", "2026-01-01T00:00:00Z", &TimeZone::UTC, 1), Vec::<String>::new());
    assert_eq!(times("*-02-30", "2026-01-01T00:00:00Z", &TimeZone::UTC, 1), Vec::<String>::new());
    assert_eq!(times("*-*-*", "2199-12-31T00:00:00Z", &TimeZone::UTC, 1), Vec::<String>::new());
}

const REFUSED: [&str; 26] = [
    "",
    "UTC",
    "12",
    "5:",
    "*:*/15",
    "*-*-~3",
    "Sat..Mon",
    "mond",
    "Mon..",
    "10-12~31",
    "*-*~29",
    "*:5/70",
    "*:0/0",
    "23..1:00",
    "*-*-31/2",
    "00:00:60",
    "24:00",
    "*-13-1",
    "*-*-0",
    "1:2:3:4",
    "5:0/15/2",
    "*-*-1/10..20",
    "2200-1-1",
    "a b c d",
    "Mon Tue 5:00",
    "*,5:00",
];

#[test]
fn what_is_no_time_is_refused_with_a_reason() {
    for text in REFUSED {
        let why = text.parse::<Calendar>().expect_err(text);
        assert!(why.contains("is no calendar time"), "{why}");
    }
    let why = "5:00 Europe/Berlin".parse::<Calendar>().unwrap_err();
    assert!(why.contains("allowed is UTC"), "{why}");
    assert!("*:*:0.5".parse::<Calendar>().unwrap_err().contains("whole"));
    let list = |count: usize| format!("{}:00", vec!["1"; count].join(",")).parse::<Calendar>();
    assert!(list(PARTS_MAX).is_ok());
    assert!(list(PARTS_MAX + 1).unwrap_err().contains("at most"));
    let padded = |length: usize| format!("daily{}", " ".repeat(length - 5)).parse::<Calendar>();
    assert!(padded(TEXT_BYTES_MAX).is_ok());
    assert!(padded(TEXT_BYTES_MAX + 1).is_err());
}

#[test]
fn a_clock_that_changes_loses_no_time_and_doubles_none() {
    let Ok(berlin) = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3") else { panic!() };
    let spring = |text| times(text, "2026-03-28T23:30:00Z", &berlin, 4);
    let autumn = |text| times(text, "2026-10-24T22:30:00Z", &berlin, 4);
    // 02:30 does not exist on the 29th, and is 03:30.
    assert_eq!(spring("*-*-* 02:30")[..2], ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
    assert_eq!(autumn("*-*-* 02:30")[..2], ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let hours = |day: &str, hours: [u8; 4]| hours.map(|hour| format!("{day}T{hour:02}:00:00Z"));
    assert_eq!(spring("hourly"), hours("2026-03-29", [0, 1, 2, 3]));
    assert_eq!(autumn("hourly")[1..], hours("2026-10-25", [0, 1, 2, 3])[..3]);
    // A zone is asked for nothing where the time is in UTC.
    assert_eq!(autumn("*-*-* 02:30 UTC")[..1], ["2026-10-25T02:30:00Z"]);
}

fn list(min: u32, max: u32) -> impl Strategy<Value = String> {
    let one = (min..=max, min..=max, 1..=5_u32).prop_flat_map(move |(a, b, step)| {
        let (low, high) = (a.min(b), a.max(b));
        let mut forms = vec![low.to_string(), format!("{low}..{high}")];
        if step <= high - low {
            forms.push(format!("{low}..{high}/{step}"));
        }
        if step <= max - low {
            forms.push(format!("{low}/{step}"));
        }
        prop::sample::select(forms)
    });
    prop_oneof![
        1 => Just("*".to_owned()),
        3 => prop::collection::vec(one, 1..4).prop_map(|parts| parts.join(",")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    let days = prop_oneof![
        list(1, 31).prop_map(|day| format!("-{day}")),
        // Of lists from the end systemd refuses some, for no reason that its manual gives.
        (1..=28_u32, 1..=28_u32).prop_map(|(a, b)| format!("~{}..{}", a.min(b), a.max(b))),
        (2..=28_u32, 1..=5_u32).prop_map(|(day, step)| format!("~{day}/{}", step.min(day - 1))),
    ];
    let weekdays = prop::sample::select(vec!["", "", "Mon ", "Sat,Sun ", "Tue..Thu ", "Wed,Fri..Sat "]);
    (weekdays, list(2020, 2040), list(1, 12), days, list(0, 23), list(0, 59), list(0, 59)).prop_map(
        |(week, year, month, day, hour, minute, second)| {
            format!("{week}{year}-{month}{day} {hour}:{minute}:{second} UTC")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Later than what it comes after, found from anywhere between, and a time of the expression itself.
    #[test]
    fn the_next_time_is_the_first_one(text in expression(), after in 1_577_836_800_i64..2_000_000_000, part in 0.0..1.0) {
        let calendar = calendar(&text);
        let after = Timestamp::from_second(after).unwrap();
        let Some(next) = calendar.next(after, &TimeZone::UTC) else { return Ok(()) };
        prop_assert!(next > after);
        let between = after.as_second() + ((next.as_second() - after.as_second()) as f64 * part) as i64;
        let between = Timestamp::from_second(between.min(next.as_second() - 1)).unwrap();
        prop_assert_eq!(calendar.next(between, &TimeZone::UTC), Some(next));
        let before = next.checked_sub(SignedDuration::from_secs(1)).unwrap();
        prop_assert_eq!(calendar.next(before, &TimeZone::UTC), Some(next));
        let again: Calendar = calendar.to_string().parse().unwrap();
        prop_assert_eq!(again, calendar);
    }
}

/// What systemd says to an expression, from a time on; none if it refuses it.
fn systemd(text: &str, after: &str, count: usize) -> Option<Vec<String>> {
    let output = Command::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={count}"), &format!("--base-time={after}"), text])
        .env("TZ", "UTC")
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |line: &str| {
        let rest = line.trim().strip_prefix("Next elapse: ").or_else(|| {
            line.trim().strip_prefix("Iter. #").and_then(|rest| Some(rest.split_once(": ")?.1))
        })?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [_, day, hour, "UTC"] = words[..] else { return None };
        Some(format!("{day}T{hour}Z"))
    };
    Some(said.lines().filter_map(of).collect())
}

#[test]
fn systemd_says_the_same() {
    const COUNT: usize = 6;
    if systemd("daily", "2026-01-01 00:00:00 UTC", 1).is_none() {
        println!("skipped: systemd-analyze is not there to compare with");
        return;
    }
    for text in REFUSED {
        assert_eq!(systemd(text, "2026-01-01 00:00:00 UTC", 1), None, "{text:?} is refused here");
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..150 {
        let tree = expression().new_tree(&mut runner).unwrap();
        let text = tree.current();
        let there = systemd(&text, "2026-01-01 00:00:00 UTC", COUNT);
        let here = times(&text, "2026-01-01T00:00:00Z", &TimeZone::UTC, COUNT);
        assert_eq!(there.as_deref(), Some(&here[..]), "{text}");
    }
}
