//! Conditions on their way from an expression to a rule: strings are not globs yet, constants and nesting are gone.

use chain::payload::policy::PolicyCondition;

use super::quoted::Piece;

/// A text that a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    PrincipalName,
    ResourceId,
}

impl Text {
    pub(super) const fn separator(self) -> char {
        match self {
            Self::PrincipalName => '.',
            Self::ResourceId => '/',
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Leaf(PolicyCondition),
    Same(Text, String),
    Like(Text, Vec<Piece>),
    /// Without members: true.
    And(Vec<Term>),
    /// Without members: false.
    Or(Vec<Term>),
    Not(Box<Term>),
}

impl Term {
    pub(super) const TRUE: Self = Self::And(Vec::new());
    pub(super) const FALSE: Self = Self::Or(Vec::new());

    pub(super) fn like(text: Text, pieces: Vec<Piece>) -> Self {
        let chars = |piece: &Piece| match piece {
            Piece::Char(c) => Some(*c),
            Piece::Star => None,
        };
        match pieces.iter().map(chars).collect() {
            Some(literal) => Self::Same(text, literal),
            None => Self::Like(text, pieces),
        }
    }

    pub(super) fn all(terms: impl IntoIterator<Item = Self>) -> Self {
        let mut members = Vec::new();
        for term in terms {
            match term {
                Self::And(inner) => members.extend(inner),
                Self::Or(inner) if inner.is_empty() => return Self::FALSE,
                other => members.push(other),
            }
        }
        if members.len() == 1 { members.pop().unwrap_or(Self::TRUE) } else { Self::And(members) }
    }

    pub(super) fn any(terms: impl IntoIterator<Item = Self>) -> Self {
        let mut members = Vec::new();
        for term in terms {
            match term {
                Self::Or(inner) => members.extend(inner),
                Self::And(inner) if inner.is_empty() => return Self::TRUE,
                other => members.push(other),
            }
        }
        if members.len() == 1 { members.pop().unwrap_or(Self::FALSE) } else { Self::Or(members) }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            Self::And(members) if members.is_empty() => Self::FALSE,
            Self::Or(members) if members.is_empty() => Self::TRUE,
            other => Self::Not(Box::new(other)),
        }
    }

    /// What it is the disjunction of.
    pub(super) fn alternatives(&self) -> &[Self] {
        match self {
            Self::Or(members) => members,
            other => std::slice::from_ref(other),
        }
    }

    /// The nesting is at most that of the text, which is bounded.
    pub(super) fn condition(&self) -> Result<PolicyCondition, String> {
        match self {
            Self::Leaf(condition) => Ok(condition.clone()),
            Self::Same(text, literal) => super::fold::literal(*text, literal),
            Self::Like(text, pieces) => super::fold::wildcards(*text, pieces),
            Self::Not(inner) => Ok(PolicyCondition::Not(Box::new(inner.condition()?))),
            Self::And(members) => {
                let mut found = super::fold::conjunction(members)?;
                Ok(match found.len() {
                    0 => PolicyCondition::Always,
                    1 => found.pop().unwrap_or(PolicyCondition::Always),
                    _ => PolicyCondition::And(found),
                })
            }
            Self::Or(members) => {
                let mut found = super::fold::disjunction(members)?;
                Ok(match found.len() {
                    0 => PolicyCondition::Never,
                    1 => found.pop().unwrap_or(PolicyCondition::Never),
                    _ => PolicyCondition::Or(found),
                })
            }
        }
    }
}
