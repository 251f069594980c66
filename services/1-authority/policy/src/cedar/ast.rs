//! Policies as they are written. What no rule can say is kept as its name alone.

use super::quoted::Piece;

#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// Where it begins.
    pub(super) at: usize,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) permit: bool,
    /// The constraints of the head, at most one for each of the three.
    pub(super) scope: Vec<Expression>,
    pub(super) clauses: Vec<Clause>,
}

#[derive(Clone, Debug)]
pub(super) struct Clause {
    pub(super) unless: bool,
    pub(super) expression: Expression,
}

#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Principal,
    Action,
    Resource,
    Context,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Bool(bool),
    Number(u64),
    Text(String),
    Variable(Variable),
    Attribute(Variable, String),
    Entity(Entity),
    Set(Vec<Expression>),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    If(Box<[Expression; 3]>),
    Relation(Relation, Box<[Expression; 2]>),
    Like(Box<Expression>, Vec<Piece>),
    /// With more than one name a path of attributes.
    Has(Box<Expression>, Vec<String>),
    Is(Box<Expression>, String, Option<Box<Expression>>),
    /// Something that no rule can say.
    Other(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entity {
    pub(super) entity_type: String,
    pub(super) id: String,
}

impl Expression {
    pub(super) const fn new(at: usize, kind: Kind) -> Self {
        Self { at, kind }
    }
}

impl Variable {
    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "principal" => Self::Principal,
            "action" => Self::Action,
            "resource" => Self::Resource,
            "context" => Self::Context,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Action => "action",
            Self::Resource => "resource",
            Self::Context => "context",
        }
    }
}
