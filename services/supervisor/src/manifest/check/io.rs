//! What a manifest says of disks.

use sandbox::{ALL_DISKS, IO_BYTES_PER_S_MIN, IO_LIMITS_MAX, IO_WEIGHT_MAX, PATH_BYTES_MAX};

use super::{super::schema::ResourceRequirements, Faults};

pub(super) fn check(faults: &mut Faults, resources: &ResourceRequirements) {
    if let Some(weight) = resources.io_weight {
        faults.range("resources.io_weight", weight, 1, IO_WEIGHT_MAX);
    }
    faults.count("resources.io", resources.io.len(), IO_LIMITS_MAX);
    for (index, one) in resources.io.iter().enumerate().take(IO_LIMITS_MAX) {
        let key = |name: &str| format!("resources.io[{index}].{name}");
        let is_path = one.place.starts_with('/')
            && one.place.len() <= PATH_BYTES_MAX
            && !one.place.contains('\0')
            && !one.place.split('/').any(|part| part == "..");
        if one.place != ALL_DISKS && !is_path {
            faults.add(key("place"), format!("{:?} is neither an absolute path nor `all`", one.place));
        }
        let most_bytes = i64::MAX.cast_unsigned();
        let bytes = [("read_bytes", one.read_bytes), ("write_bytes", one.write_bytes)];
        for (name, given) in bytes {
            if let Some(given) = given {
                faults.range(&key(name), given, IO_BYTES_PER_S_MIN, most_bytes);
            }
        }
        let operations =
            [("read_operations", one.read_operations), ("write_operations", one.write_operations)];
        for (name, given) in operations {
            if let Some(given) = given {
                faults.range(&key(name), given, 1, u64::from(u32::MAX));
            }
        }
        if bytes.iter().chain(&operations).all(|(_, given)| given.is_none()) {
            faults.add(
                key("place"),
                "nothing is limited; say read_bytes, write_bytes, read_operations or write_operations",
            );
        }
    }
}
