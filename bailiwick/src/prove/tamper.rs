//! Section `tamper`: every flipped byte of a log is found and named, every cut against its head, every splice.

use anyhow::Result;
use sim::Broken;

use super::{Context, Section};

/// Size of the log whose every byte is flipped.
const LOG_BYTES: u64 = 64 * 1024;

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("tamper");
    let broken = if context.is_broken("chain") { Broken::Chain } else { Broken::Nothing };
    let report = sim::tamper(context.seed, LOG_BYTES, broken);
    section.count("bytes flipped", report.bytes_flipped);
    section.count("named by entry", report.named_entry);
    section.count("by group header", report.named_group_header);
    section.count("by segment header", report.named_segment_header);
    section.count("by padding", report.named_padding);
    section.count("truncations", report.truncations);
    section.count("splices", report.splices);
    let missed = report.missed.len();
    for what in report.missed.iter().take(10) {
        section.miss(what.to_string());
    }
    if missed > 10 {
        section.miss(format!("and {} more", missed - 10));
    }
    section.check(report.bytes_flipped >= LOG_BYTES, "not every byte was flipped");
    Ok(section)
}
