//! What a program may ask of disks, in the words of a request and in those of a plan.

use chain::payload::process::{IoLimit, ResourceLimits};
use sandbox::{ALL_DISKS, IO_BYTES_PER_S_MIN, IO_LIMITS_MAX, IO_WEIGHT_MAX, IoLimits};

use super::{ProcessError, limits::IO_PLACE_BYTES_MAX, request};

const FIELD: &str = "resource_limits";

pub(super) fn check(limits: &ResourceLimits) -> Result<(), ProcessError> {
    bytes("io_bandwidth_bytes", Some(limits.io_bandwidth_bytes).filter(|given| *given > 0))?;
    let Some(io) = &limits.io else { return Ok(()) };
    if let Some(weight) = io.weight.filter(|weight| *weight > IO_WEIGHT_MAX) {
        return Err(ProcessError::invalid(
            FIELD,
            format!("io_weight {weight}, 1 to {IO_WEIGHT_MAX} are allowed"),
        ));
    }
    // Of each disk is one limit more.
    let most = IO_LIMITS_MAX - usize::from(limits.io_bandwidth_bytes > 0);
    request::at_most(FIELD, io.max.len(), most, "limits of disks")?;
    io.max.iter().try_for_each(one)
}

fn one(limit: &IoLimit) -> Result<(), ProcessError> {
    if limit.place != ALL_DISKS {
        request::at_most(FIELD, limit.place.len(), IO_PLACE_BYTES_MAX, "bytes of a place on a disk")?;
        request::absolute(FIELD, &limit.place)?;
    }
    bytes("read_bytes", limit.read_bytes)?;
    bytes("write_bytes", limit.write_bytes)?;
    for given in [limit.read_operations, limit.write_operations].into_iter().flatten() {
        if given > u64::from(u32::MAX) {
            return Err(ProcessError::invalid(
                FIELD,
                format!("{given} operations per second, at most {} are allowed", u32::MAX),
            ));
        }
    }
    let numbers = [limit.read_bytes, limit.write_bytes, limit.read_operations, limit.write_operations];
    if numbers.iter().all(Option::is_none) {
        return Err(ProcessError::invalid(
            FIELD,
            format!("nothing is limited of the disk of {}", limit.place),
        ));
    }
    Ok(())
}

fn bytes(what: &str, given: Option<u64>) -> Result<(), ProcessError> {
    let allowed = IO_BYTES_PER_S_MIN..=i64::MAX.cast_unsigned();
    match given.filter(|given| !allowed.contains(given)) {
        Some(given) => Err(ProcessError::invalid(
            FIELD,
            format!("{what} {given} per second, at least {IO_BYTES_PER_S_MIN} are allowed"),
        )),
        None => Ok(()),
    }
}

/// For the group of a program. Nobody is asked for a limit, so one that nothing holds is refused at the launch.
pub(super) fn of_program(limits: &ResourceLimits) -> Option<IoLimits> {
    let each = Some(limits.io_bandwidth_bytes).filter(|given| *given > 0).map(|given| sandbox::IoLimit {
        place: ALL_DISKS.to_owned(),
        read_bytes_per_s: Some(given),
        write_bytes_per_s: Some(given),
        ..sandbox::IoLimit::default()
    });
    let io = limits.io.clone().unwrap_or_default();
    let max: Vec<_> = each.into_iter().chain(io.max.into_iter().map(translated)).collect();
    (io.weight.is_some() || !max.is_empty()).then_some(IoLimits {
        weight: io.weight,
        max,
        is_optional: false,
    })
}

fn translated(limit: IoLimit) -> sandbox::IoLimit {
    sandbox::IoLimit {
        place: limit.place,
        read_bytes_per_s: limit.read_bytes,
        write_bytes_per_s: limit.write_bytes,
        read_operations_per_s: limit.read_operations,
        write_operations_per_s: limit.write_operations,
    }
}

#[cfg(test)]
mod tests {
    use chain::payload::process::IoLimits as Recorded;

    use super::*;

    fn with(max: Vec<IoLimit>) -> ResourceLimits {
        ResourceLimits { io: Some(Recorded { weight: None, max }), ..ResourceLimits::default() }
    }

    fn limit(place: &str) -> IoLimit {
        IoLimit { place: place.to_owned(), read_bytes: Some(4096), ..IoLimit::default() }
    }

    /// covers: PRC-29
    #[test]
    fn a_bandwidth_is_of_each_disk_and_stands_beside_the_others() {
        let mut limits = with(vec![limit("/data")]);
        limits.io_bandwidth_bytes = 9000;
        let io = of_program(&limits).unwrap();
        assert!(!io.is_optional);
        let found: Vec<_> = io
            .max
            .iter()
            .map(|one| (one.place.as_str(), one.read_bytes_per_s, one.write_bytes_per_s))
            .collect();
        assert_eq!(found, [("all", Some(9000), Some(9000)), ("/data", Some(4096), None)]);
        assert_eq!(of_program(&ResourceLimits::default()), None);
    }

    #[test]
    fn what_cannot_be_held_is_refused_at_its_edge() {
        let ok = |limits: &ResourceLimits| check(limits).is_ok();
        assert!(ok(&ResourceLimits::default()) && ok(&with(vec![limit("all"), limit("/")])));
        for place in ["", "data", "/a/../b"] {
            assert!(!ok(&with(vec![limit(place)])), "{place:?}");
        }
        assert!(ok(&with(vec![limit(&"/".repeat(IO_PLACE_BYTES_MAX))])));
        assert!(!ok(&with(vec![limit(&"/".repeat(IO_PLACE_BYTES_MAX + 1))])));
        let mut many = with(vec![limit("/"); IO_LIMITS_MAX]);
        assert!(ok(&many));
        many.io_bandwidth_bytes = 4096;
        assert!(!ok(&many), "each disk counts");
        assert!(!ok(&with(vec![limit("/"); IO_LIMITS_MAX + 1])));
        assert!(!ok(&with(vec![IoLimit { read_bytes: Some(4095), ..limit("/") }])));
        assert!(!ok(&with(vec![IoLimit { write_bytes: Some(u64::MAX), ..limit("/") }])));
        let operations =
            |count| with(vec![IoLimit { read_bytes: None, write_operations: Some(count), ..limit("/") }]);
        assert!(ok(&operations(1)) && ok(&operations(u64::from(u32::MAX))));
        assert!(!ok(&operations(u64::from(u32::MAX) + 1)));
        assert!(!ok(&with(vec![IoLimit { read_bytes: None, ..limit("/") }])), "no number");
        let weight = |weight| ResourceLimits {
            io: Some(Recorded { weight: Some(weight), max: Vec::new() }),
            ..ResourceLimits::default()
        };
        assert!(ok(&weight(IO_WEIGHT_MAX)) && !ok(&weight(IO_WEIGHT_MAX + 1)));
        assert_eq!(of_program(&weight(50)).unwrap().weight, Some(50));
    }
}
