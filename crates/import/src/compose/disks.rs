//! `blkio_config`.

use super::Work;
use crate::{
    manifest::IoMaximum,
    parts,
    report::Fate,
    unit::value,
    yaml::{Node, Value},
};

/// Weights there.
const WEIGHT: (u64, u64) = (10, 1000);
/// The supervisor's limit.
const BYTES_MIN: u64 = 4096;

type Set = fn(&mut IoMaximum) -> &mut Option<u64>;

impl Work<'_> {
    pub(super) fn disks(&mut self, key: &str, node: &Node) {
        for (name, part) in node.entries() {
            let done = match name.as_str() {
                "weight" => self.disk_weight(part),
                "device_read_bps" => self.each_disk(part, true, |one| &mut one.read_bytes),
                "device_write_bps" => self.each_disk(part, true, |one| &mut one.write_bytes),
                "device_read_iops" => self.each_disk(part, false, |one| &mut one.read_operations),
                "device_write_iops" => self.each_disk(part, false, |one| &mut one.write_operations),
                _ => Err(format!("{name}: a manifest has one weight for all disks")),
            };
            match done {
                Ok((fate, how)) => self.say(key, part, fate, how),
                Err(why) => self.say(key, part, Fate::Refused, why),
            }
        }
        if node.entries().is_empty() {
            self.say(key, node, Fate::Refused, "it has no parts");
        }
    }

    fn disk_weight(&mut self, node: &Node) -> Result<(Fate, &'static str), String> {
        let text = node.text().unwrap_or_default();
        let weight = parts::number(text, WEIGHT.1)?;
        if weight < WEIGHT.0 {
            return Err(format!("the weight {weight}, {} to {} are allowed", WEIGHT.0, WEIGHT.1));
        }
        // As runc does it, so that the weight means here what it means there on v2.
        self.manifest.resources.io_weight = Some(1 + (weight - WEIGHT.0) * 9999 / (WEIGHT.1 - WEIGHT.0));
        Ok((Fate::Approximated, "[resources] io_weight: 10 to 1000 there is 1 to 10000 here"))
    }

    fn each_disk(&mut self, node: &Node, is_size: bool, set: Set) -> Result<(Fate, &'static str), String> {
        let Value::List(disks) = &node.value else { return Err("it is no list".to_owned()) };
        for disk in disks {
            let part = |name: &str| {
                disk.get(name).and_then(Node::text).ok_or_else(|| format!("a disk has no {name}"))
            };
            let (place, rate) = (part("path")?, part("rate")?);
            if !place.starts_with('/') || place.split('/').any(|part| part == "..") {
                return Err(format!("{place:?} is no absolute path"));
            }
            let number = if is_size { size(rate)? } else { parts::number(rate, u64::from(u32::MAX))? };
            if !self.manifest.resources.limit_disk(place.to_owned(), |one| *set(one) = Some(number)) {
                return Err("a manifest limits at most 16 disks".to_owned());
            }
        }
        Ok((Fate::Mapped, "[resources] io"))
    }
}

/// `12mb`, by 1024.
fn size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let plain = upper.strip_suffix('B').filter(|rest| rest.ends_with(char::is_alphabetic)).unwrap_or(&upper);
    match value::bytes(plain)? {
        Some(bytes) if bytes >= BYTES_MIN && i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(format!("{text:?} per second, at least {BYTES_MIN} bytes are allowed")),
    }
}
