//! Globs and path prefixes, found again in the comparisons that stand for them.
//!
//! Cedar's `*` crosses separators, as `**` does here. A pattern whose stars stay inside components is the same pattern
//! with Cedar's stars for as many separators as it has itself: if the text has no more, no star holds one.

use chain::payload::policy::{IdentityMatcher, PolicyCondition, ResourceMatcher};

use super::{
    quoted::Piece,
    terms::{Term, Text},
};
use crate::core::{glob, is_normal_path, limits::RESOURCE_BYTES_MAX};

/// Matches what has at least so many separators.
pub(super) fn separators(text: Text, count: usize) -> Vec<Piece> {
    let mut pieces = vec![Piece::Star];
    for _ in 0..count {
        pieces.extend([Piece::Char(text.separator()), Piece::Star]);
    }
    pieces
}

/// At `/` or below it is everything that begins so; elsewhere a separator follows.
pub(super) fn below(prefix: &str) -> Vec<Piece> {
    let slash = if prefix == "/" { None } else { Some('/') };
    prefix.chars().chain(slash).map(Piece::Char).chain([Piece::Star]).collect()
}

pub(super) fn literal(text: Text, literal: &str) -> Result<PolicyCondition, String> {
    pattern(text, literal.chars().map(Piece::Char), "")
}

pub(super) fn wildcards(text: Text, pieces: &[Piece]) -> Result<PolicyCondition, String> {
    pattern(text, pieces.iter().copied(), "**")
}

fn pattern(
    text: Text,
    pieces: impl IntoIterator<Item = Piece>,
    star: &str,
) -> Result<PolicyCondition, String> {
    let mut pattern = String::new();
    for piece in pieces {
        match piece {
            Piece::Char(c @ ('*' | '?')) => {
                return Err(format!("no pattern of a rule holds the character `{c}` itself"));
            }
            Piece::Char(c) => pattern.push(c),
            Piece::Star => pattern.push_str(star),
        }
    }
    glob::check(&pattern).map_err(|error| error.to_string())?;
    Ok(match text {
        Text::PrincipalName => PolicyCondition::Identity(IdentityMatcher::Pattern(pattern)),
        Text::ResourceId => PolicyCondition::Resource(ResourceMatcher::Pattern(pattern)),
    })
}

/// The members, with a pattern and the bound of its separators as one.
pub(super) fn conjunction(members: &[Term]) -> Result<Vec<PolicyCondition>, String> {
    pairs(members, |one, other| {
        let (Term::Like(text, pieces), Term::Not(bound)) = (one, other) else { return None };
        let own = pieces.iter().filter(|piece| **piece == Piece::Char(text.separator())).count();
        let Term::Like(bounded, counted) = &**bound else { return None };
        let stays = bounded == text && *counted == separators(*text, own + 1);
        stays.then(|| pattern(*text, pieces.iter().copied(), "*"))?.ok()
    })
}

/// The members, with a path and what is below it as one.
pub(super) fn disjunction(members: &[Term]) -> Result<Vec<PolicyCondition>, String> {
    pairs(members, |one, other| {
        let (Term::Same(Text::ResourceId, path), Term::Like(Text::ResourceId, pieces)) = (one, other) else {
            return None;
        };
        let is_prefix = path.len() <= RESOURCE_BYTES_MAX && is_normal_path(path) && *pieces == below(path);
        is_prefix.then(|| PolicyCondition::Resource(ResourceMatcher::PathPrefix(path.clone())))
    })
}

fn pairs(
    members: &[Term],
    pair: impl Fn(&Term, &Term) -> Option<PolicyCondition>,
) -> Result<Vec<PolicyCondition>, String> {
    let mut found = Vec::with_capacity(members.len());
    let mut rest = members;
    while let [one, behind @ ..] = rest {
        let both = behind.first().and_then(|other| pair(one, other));
        rest = behind.get(usize::from(both.is_some())..).unwrap_or(&[]);
        found.push(both.map_or_else(|| one.condition(), Ok)?);
    }
    Ok(found)
}
