//! Who needs whom, and the orders that follow from it (seed 003 §2.2, §6.1).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use semver::{Version, VersionReq};
use thiserror::Error;

use super::catalogue::{self, Phase};
use crate::manifest::ServiceManifest;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphError {
    #[error("the dependencies {} form a cycle; take one of them out", .0.join(" -> "))]
    Cycle(Vec<String>),
    #[error(
        "{service} starts in phase {phase:?} and requires {dependency}, which starts later, in phase {later:?}; make it `required = false`"
    )]
    Later { service: String, phase: Phase, dependency: String, later: Phase },
}

impl GraphError {
    /// The services that take part.
    #[must_use]
    pub fn services(&self) -> Vec<&str> {
        match self {
            Self::Cycle(names) => names.iter().map(String::as_str).collect(),
            Self::Later { service, .. } => vec![service],
        }
    }
}

/// Why a required dependency can never be met by the manifests that are there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DependencyFault {
    #[error("required service {0} is not installed")]
    Absent(String),
    #[error("required service {name} has version {version}, required is {required}")]
    OutOfRange { name: String, version: Version, required: VersionReq },
}

#[derive(Clone, Debug)]
struct Node {
    version: Version,
    phase: Phase,
    rank: usize,
    edges: Vec<Edge>,
}

#[derive(Clone, Debug)]
struct Edge {
    to: String,
    range: VersionReq,
    required: bool,
}

/// The manifests' dependencies; has no cycle, and no required one points to a later phase.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<String, Node>,
    start_order: Arc<[String]>,
    stop_order: Arc<[String]>,
    dependents: BTreeMap<String, Vec<String>>,
    /// Services whose required dependencies can never be met.
    faults: BTreeMap<String, DependencyFault>,
}

impl Graph {
    pub fn new<'a>(manifests: impl IntoIterator<Item = &'a ServiceManifest>) -> Result<Self, GraphError> {
        let nodes: BTreeMap<String, Node> =
            manifests.into_iter().map(|m| (m.service.name.clone(), Node::of(m))).collect();
        refuse_cycles(&nodes)?;
        refuse_later(&nodes)?;
        let start_order = ordered(&nodes, Phase::ALL.iter().copied(), false);
        let stop_order = ordered(&nodes, Phase::ALL.iter().rev().copied(), true);
        let mut dependents: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in &start_order {
            for edge in nodes.get(name).into_iter().flat_map(|node| &node.edges).filter(|edge| edge.required)
            {
                dependents.entry(edge.to.clone()).or_default().push(name.clone());
            }
        }
        let fault = |(name, node): (&String, &Node)| Some((name.clone(), fault_of(node, &nodes)?));
        let faults = nodes.iter().filter_map(fault).collect();
        Ok(Self { start_order: start_order.into(), stop_order: stop_order.into(), dependents, faults, nodes })
    }

    /// Takes out services of the user that stand in a cycle or need what starts later, until the rest is sound. Only
    /// services of the catalogue can make this fail: what the node itself is made of must be right.
    pub fn admit(manifests: &mut Vec<ServiceManifest>) -> Result<(Self, Vec<GraphError>), GraphError> {
        let mut refused = Vec::new();
        loop {
            match Self::new(manifests.iter()) {
                Ok(graph) => return Ok((graph, refused)),
                Err(error) => {
                    let before = manifests.len();
                    let names = error.services();
                    manifests.retain(|m| {
                        let name = m.service.name.as_str();
                        catalogue::find(name).is_some() || !names.contains(&name)
                    });
                    if manifests.len() == before {
                        return Err(error);
                    }
                    refused.push(error);
                }
            }
        }
    }

    /// Dependencies before dependents, phase by phase.
    #[must_use]
    pub fn start_order(&self) -> &Arc<[String]> {
        &self.start_order
    }

    /// Dependents before dependencies, last phase first (SUP-94).
    #[must_use]
    pub fn stop_order(&self) -> &Arc<[String]> {
        &self.stop_order
    }

    /// Services that `name` requires, there or not.
    pub fn required(&self, name: &str) -> impl Iterator<Item = &str> {
        self.edges(name).filter(|edge| edge.required).map(|edge| edge.to.as_str())
    }

    /// Services that are there and start in the same phase, which `name` uses but does not require: they go first.
    pub fn preferred(&self, name: &str) -> impl Iterator<Item = &str> {
        let phase = self.nodes.get(name).map(|node| node.phase);
        self.edges(name)
            .filter(move |edge| !edge.required && self.nodes.get(&edge.to).map(|node| node.phase) == phase)
            .map(|edge| edge.to.as_str())
    }

    /// Services that require `name`, in starting order.
    #[must_use]
    pub fn dependents(&self, name: &str) -> &[String] {
        self.dependents.get(name).map_or(&[], Vec::as_slice)
    }

    /// All required dependencies are there in a version that fits (SUP-33).
    pub fn check(&self, name: &str) -> Result<(), &DependencyFault> {
        self.faults.get(name).map_or(Ok(()), Err)
    }

    fn edges(&self, name: &str) -> impl Iterator<Item = &Edge> {
        self.nodes.get(name).into_iter().flat_map(|node| &node.edges)
    }
}

impl Node {
    fn of(manifest: &ServiceManifest) -> Self {
        let name = &manifest.service.name;
        Self {
            version: manifest.service.version.clone(),
            phase: catalogue::phase(name),
            rank: catalogue::rank(name),
            edges: manifest
                .dependencies
                .iter()
                .map(|d| Edge { to: d.name.clone(), range: d.version.clone(), required: d.required })
                .collect(),
        }
    }
}

fn fault_of(node: &Node, nodes: &BTreeMap<String, Node>) -> Option<DependencyFault> {
    node.edges.iter().filter(|edge| edge.required).find_map(|edge| match nodes.get(&edge.to) {
        None => Some(DependencyFault::Absent(edge.to.clone())),
        Some(other) if !edge.range.matches(&other.version) => Some(DependencyFault::OutOfRange {
            name: edge.to.clone(),
            version: other.version.clone(),
            required: edge.range.clone(),
        }),
        Some(_) => None,
    })
}

/// Optional edges count too: calls go one way, and a circle of two optional ones would still be a circle of calls.
fn refuse_cycles(nodes: &BTreeMap<String, Node>) -> Result<(), GraphError> {
    let mut sound: BTreeSet<&str> = BTreeSet::new();
    for start in nodes.keys() {
        // Depth first with the path kept apart, so that depth costs memory and not stack.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, index)) = path.pop() {
            let next = nodes.get(name).and_then(|node| node.edges.get(index)).map(|edge| edge.to.as_str());
            let Some(next) = next else {
                sound.insert(name);
                continue;
            };
            path.push((name, index + 1));
            if let Some(at) = path.iter().position(|(on_path, _)| *on_path == next) {
                let mut cycle: Vec<String> =
                    path.iter().skip(at).map(|(name, _)| (*name).to_owned()).collect();
                cycle.push(next.to_owned());
                return Err(GraphError::Cycle(cycle));
            }
            if nodes.contains_key(next) && !sound.contains(next) {
                path.push((next, 0));
            }
        }
    }
    Ok(())
}

fn refuse_later(nodes: &BTreeMap<String, Node>) -> Result<(), GraphError> {
    for (name, node) in nodes {
        for edge in node.edges.iter().filter(|edge| edge.required) {
            let later = catalogue::phase(&edge.to);
            if later > node.phase {
                return Err(GraphError::Later {
                    service: name.clone(),
                    phase: node.phase,
                    dependency: edge.to.clone(),
                    later,
                });
            }
        }
    }
    Ok(())
}

/// Phase by phase; inside a phase whoever has nobody left to wait for, the listed order first.
fn ordered(
    nodes: &BTreeMap<String, Node>,
    phases: impl Iterator<Item = Phase>,
    dependents_first: bool,
) -> Vec<String> {
    let mut order = Vec::with_capacity(nodes.len());
    for phase in phases {
        let members: BTreeMap<&str, &Node> =
            nodes.iter().filter(|(_, n)| n.phase == phase).map(|(name, n)| (name.as_str(), n)).collect();
        let mut waits_for: BTreeMap<&str, BTreeSet<&str>> =
            members.keys().map(|name| (*name, BTreeSet::new())).collect();
        let mut frees: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, node) in &members {
            for edge in node.edges.iter().filter(|edge| members.contains_key(edge.to.as_str())) {
                let (first, second) =
                    if dependents_first { (*name, edge.to.as_str()) } else { (edge.to.as_str(), *name) };
                waits_for.entry(second).or_default().insert(first);
                frees.entry(first).or_default().push(second);
            }
        }
        let key = |name: &str| (members.get(name).map_or(0, |node| node.rank), name.to_owned());
        let mut ready: BTreeSet<(usize, String)> =
            waits_for.iter().filter(|(_, on)| on.is_empty()).map(|(name, _)| key(name)).collect();
        while let Some((_, name)) = ready.pop_first() {
            for freed in frees.get(name.as_str()).into_iter().flatten() {
                let Some(on) = waits_for.get_mut(freed) else { continue };
                if on.remove(name.as_str()) && on.is_empty() {
                    ready.insert(key(freed));
                }
            }
            order.push(name);
        }
    }
    order
}
