//! Who spends how much processor time: unlike the rate, it hardly depends on what else a machine does.

use std::collections::BTreeMap;

use crate::process;

/// Nanoseconds of processor time by process.
#[derive(Clone, Debug, Default)]
pub(super) struct Effort(BTreeMap<String, u64>);

impl Effort {
    /// This process, which is the load, and those of a node by the names of their services.
    pub(super) fn processes(keeper: i32) -> Vec<(String, i32)> {
        let own = std::process::id().cast_signed();
        let of_node = process::descendants(keeper).into_iter().map(|pid| (process::node_name(pid), pid));
        std::iter::once(("load".to_owned(), own)).chain(of_node).collect()
    }

    pub(super) fn of_all(pids: &[(String, i32)]) -> Self {
        let mut all = Self::default();
        for (name, pid) in pids {
            *all.0.entry(name.clone()).or_default() += process::cpu_ns(*pid);
        }
        all
    }

    pub(super) fn since(mut self, before: &Self) -> Self {
        for (name, ns) in &mut self.0 {
            *ns = ns.saturating_sub(before.0.get(name).copied().unwrap_or(0));
        }
        self
    }

    pub(super) fn add(&mut self, other: Self) {
        for (name, ns) in other.0 {
            *self.0.entry(name).or_default() += ns;
        }
    }

    pub(super) fn total_us(&self) -> f64 {
        self.0.values().sum::<u64>() as f64 / 1e3
    }

    /// Microseconds of each process for one act; what is next to nothing is left out.
    pub(super) fn each(&self, acts: u64) -> String {
        let of_act = self.0.iter().map(|(name, ns)| (name, *ns as f64 / 1e3 / acts as f64));
        let shown = of_act.filter(|(_, us)| *us >= 0.05).map(|(name, us)| format!("{name} {us:.1}"));
        shown.collect::<Vec<_>>().join(", ")
    }
}
