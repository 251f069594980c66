//! What an expression compares, as a term; or why no rule can.

use base::AxiomTime;
use chain::payload::policy::{
    ActionMatcher, IdentityMatcher, PolicyCondition, ResourceMatcher, ResourceRef, ResourceType,
};

use super::{
    Fault,
    ast::{Entity, Expression, Kind, Relation, Variable},
    terms::{Term, Text},
    vocabulary::{self, ACTION, ID, IDENTITY, NAME, NOW, TYPE},
};

/// Counts the comparisons that are left.
pub(super) struct Reader {
    pub(super) left: usize,
}

type Read = Result<Term, Fault>;

impl Reader {
    /// The nesting was bounded when the text was read.
    pub(super) fn term(&mut self, expression: &Expression) -> Read {
        let at = expression.at;
        match &expression.kind {
            Kind::And(members) => Ok(Term::all(self.each(members)?)),
            Kind::Or(members) => Ok(Term::any(self.each(members)?)),
            Kind::Not(inner) => Ok(self.term(inner)?.negated()),
            Kind::If(parts) => self.choice(parts),
            other => {
                self.left = self.left.checked_sub(1).ok_or_else(|| {
                    Fault::new(at, format!("a file has at most {} comparisons", super::COMPARISONS_MAX))
                })?;
                leaf(at, other)
            }
        }
    }

    fn each(&mut self, members: &[Expression]) -> Result<Vec<Term>, Fault> {
        members.iter().map(|member| self.term(member)).collect()
    }

    /// The condition is read twice, and counted twice.
    fn choice(&mut self, [condition, then, otherwise]: &[Expression; 3]) -> Read {
        let yes = Term::all([self.term(condition)?, self.term(then)?]);
        let no = Term::all([self.term(condition)?.negated(), self.term(otherwise)?]);
        Ok(Term::any([yes, no]))
    }
}

fn leaf(at: usize, kind: &Kind) -> Read {
    match kind {
        Kind::Bool(true) => Ok(Term::TRUE),
        Kind::Bool(false) => Ok(Term::FALSE),
        Kind::Relation(relation, sides) => {
            let [left, right] = &**sides;
            compared(*relation, left, right)
        }
        Kind::Like(subject, pieces) => match &subject.kind {
            Kind::Attribute(variable, name) => match text_of(*variable, name) {
                Some(text) => Ok(Term::like(text, pieces.clone())),
                None => unknown_attribute(subject.at, *variable, name),
            },
            _ => no_rule(at, "`like` on anything but `principal.name` and `resource.id`"),
        },
        Kind::Has(subject, names) => has(at, subject, names),
        Kind::Is(subject, entity_type, above) => is(at, subject, entity_type, above.as_deref()),
        Kind::Attribute(variable, name) => unknown_attribute(at, *variable, name),
        Kind::Other(what) => no_rule(at, what),
        Kind::Number(_) | Kind::Text(_) | Kind::Variable(_) | Kind::Entity(_) | Kind::Set(_) => {
            no_rule(at, "a value where a comparison is needed")
        }
        Kind::And(_) | Kind::Or(_) | Kind::Not(_) | Kind::If(_) => no_rule(at, "this expression"),
    }
}

fn no_rule<T>(at: usize, what: &str) -> Result<T, Fault> {
    Err(Fault::new(at, format!("no rule has {what}")))
}

fn unknown_attribute<T>(at: usize, variable: Variable, name: &str) -> Result<T, Fault> {
    let shown: String = name.chars().take(40).collect();
    no_rule(at, &format!("the attribute `{}.{shown}` in this place", variable.name()))
}

fn text_of(variable: Variable, name: &str) -> Option<Text> {
    match (variable, name) {
        (Variable::Principal, NAME) => Some(Text::PrincipalName),
        (Variable::Resource, ID) => Some(Text::ResourceId),
        _ => None,
    }
}

/// Every request has these.
fn has(at: usize, subject: &Expression, names: &[String]) -> Read {
    let [name] = names else { return no_rule(at, "attributes of attributes") };
    let Kind::Variable(variable) = subject.kind else {
        return no_rule(at, "`has` on anything but a variable");
    };
    match (variable, name.as_str()) {
        (Variable::Principal, NAME | TYPE) | (Variable::Resource, ID) | (Variable::Context, NOW) => {
            Ok(Term::TRUE)
        }
        (_, name) => unknown_attribute(at, variable, name),
    }
}

fn is(at: usize, subject: &Expression, entity_type: &str, above: Option<&Expression>) -> Read {
    match (&subject.kind, above) {
        (Kind::Variable(Variable::Principal), above) if entity_type == IDENTITY => match above {
            None => Ok(Term::TRUE),
            Some(above) => in_group(above),
        },
        (Kind::Variable(Variable::Resource), None) => {
            let wanted = resource_type(at, entity_type)?;
            Ok(Term::Leaf(PolicyCondition::Resource(ResourceMatcher::Type(wanted))))
        }
        (Kind::Variable(Variable::Resource), Some(above)) => {
            no_rule(above.at, "resources inside of resources")
        }
        (Kind::Variable(Variable::Principal), _) => {
            no_rule(at, &format!("principals of other types than `{IDENTITY}`"))
        }
        _ => no_rule(at, "`is` on anything but principal and resource"),
    }
}

fn resource_type(at: usize, entity_type: &str) -> Result<ResourceType, Fault> {
    let found = vocabulary::resource_type(entity_type);
    let shown: String = entity_type.chars().take(40).collect();
    found.ok_or_else(|| Fault::new(at, format!("no resource is of the type `{shown}`")))
}

fn compared(relation: Relation, left: &Expression, right: &Expression) -> Read {
    match relation {
        Relation::Equal => equal(left, right),
        Relation::NotEqual => Ok(equal(left, right)?.negated()),
        Relation::In => inside(left, right),
        order => ordered(order, left, right),
    }
}

/// Only times have an order.
fn ordered(relation: Relation, left: &Expression, right: &Expression) -> Read {
    let (relation, number) = match (time(left), &right.kind, time(right), &left.kind) {
        (true, Kind::Number(number), ..) => (relation, *number),
        (.., true, Kind::Number(number)) => (mirrored(relation), *number),
        _ => return no_rule(left.at, "an order of anything but `context.now` and a number"),
    };
    let behind = number.saturating_add(1);
    Ok(Term::Leaf(match relation {
        Relation::Less => PolicyCondition::Before(AxiomTime(number)),
        Relation::LessOrEqual => PolicyCondition::Before(AxiomTime(behind)),
        Relation::Greater => PolicyCondition::After(AxiomTime(behind)),
        _ => PolicyCondition::After(AxiomTime(number)),
    }))
}

fn time(expression: &Expression) -> bool {
    matches!(&expression.kind, Kind::Attribute(Variable::Context, name) if name == NOW)
}

const fn mirrored(relation: Relation) -> Relation {
    match relation {
        Relation::Less => Relation::Greater,
        Relation::LessOrEqual => Relation::GreaterOrEqual,
        Relation::Greater => Relation::Less,
        Relation::GreaterOrEqual => Relation::LessOrEqual,
        other => other,
    }
}

fn equal(left: &Expression, right: &Expression) -> Read {
    match (&left.kind, &right.kind) {
        (Kind::Variable(variable), Kind::Entity(entity)) => same_entity(right.at, *variable, entity),
        (Kind::Entity(entity), Kind::Variable(variable)) => same_entity(left.at, *variable, entity),
        (Kind::Attribute(variable, name), Kind::Text(text)) => same_text(left.at, *variable, name, text),
        (Kind::Text(text), Kind::Attribute(variable, name)) => same_text(right.at, *variable, name, text),
        (Kind::Attribute(Variable::Context, name), Kind::Number(number))
        | (Kind::Number(number), Kind::Attribute(Variable::Context, name))
            if name == NOW =>
        {
            let (from, to) = (AxiomTime(*number), AxiomTime(number.saturating_add(1)));
            Ok(Term::all([PolicyCondition::After(from), PolicyCondition::Before(to)].map(Term::Leaf)))
        }
        (_, Kind::Other(what)) => no_rule(right.at, what),
        (Kind::Other(what), _) => no_rule(left.at, what),
        _ => no_rule(left.at, "a comparison of these two"),
    }
}

fn same_text(at: usize, variable: Variable, name: &str, text: &str) -> Read {
    if (variable, name) == (Variable::Principal, TYPE) {
        let found = vocabulary::identity_type(text);
        let shown: String = text.chars().take(40).collect();
        let found = found.ok_or_else(|| Fault::new(at, format!("no identity is of the type {shown:?}")))?;
        return Ok(Term::Leaf(PolicyCondition::Identity(IdentityMatcher::Type(found))));
    }
    match text_of(variable, name) {
        Some(place) => Ok(Term::Same(place, text.to_owned())),
        None => unknown_attribute(at, variable, name),
    }
}

fn same_entity(at: usize, variable: Variable, entity: &Entity) -> Read {
    Ok(Term::Leaf(match variable {
        Variable::Principal => PolicyCondition::Identity(IdentityMatcher::Exact(identity(at, entity)?)),
        Variable::Action => PolicyCondition::Action(ActionMatcher::Kind(action(at, entity)?)),
        Variable::Resource => PolicyCondition::Resource(ResourceMatcher::Exact(ResourceRef {
            resource_type: resource_type(at, &entity.entity_type)?,
            id: entity.id.clone(),
        })),
        Variable::Context => return no_rule(at, "a comparison of the context and an entity"),
    }))
}

fn identity(at: usize, entity: &Entity) -> Result<base::IdentityId, Fault> {
    let id = (entity.entity_type == IDENTITY).then(|| entity.id.parse::<base::IdentityId>().ok()).flatten();
    // One identity is one entity: its id in lower case.
    id.filter(|id| id.to_string() == entity.id).ok_or_else(|| {
        Fault::new(
            at,
            format!(
                "this is no identity; write `{IDENTITY}::\"…\"` with 64 hexadecimal digits in lower case"
            ),
        )
    })
}

fn action(at: usize, entity: &Entity) -> Result<chain::payload::policy::ActionKind, Fault> {
    let kind = (entity.entity_type == ACTION).then(|| vocabulary::action(&entity.id)).flatten();
    let shown: String = entity.id.chars().take(40).collect();
    kind.ok_or_else(|| Fault::new(at, format!("there is no action {shown:?}")))
}

fn inside(left: &Expression, right: &Expression) -> Read {
    match (&left.kind, &right.kind) {
        (Kind::Variable(Variable::Principal), Kind::Set(groups)) => {
            Ok(Term::any(groups.iter().map(in_group).collect::<Result<Vec<_>, _>>()?))
        }
        (Kind::Variable(Variable::Principal), _) => in_group(right),
        // Actions have no groups, so what an action is in is the action.
        (Kind::Variable(Variable::Action), Kind::Set(actions)) => {
            let kind = |one: &Expression| match &one.kind {
                Kind::Entity(entity) => action(one.at, entity),
                _ => no_rule(one.at, "anything but actions here"),
            };
            let kinds = actions.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
            if kinds.is_empty() {
                return Ok(Term::FALSE);
            }
            Ok(Term::Leaf(PolicyCondition::Action(ActionMatcher::AnyOf(kinds))))
        }
        (Kind::Variable(Variable::Action), Kind::Entity(entity)) => {
            same_entity(right.at, Variable::Action, entity)
        }
        (Kind::Variable(Variable::Resource), _) => no_rule(right.at, "resources inside of resources"),
        _ => no_rule(left.at, "`in` for these two"),
    }
}

fn in_group(above: &Expression) -> Read {
    match &above.kind {
        Kind::Entity(entity) => {
            let group = IdentityMatcher::Group(identity(above.at, entity)?);
            Ok(Term::Leaf(PolicyCondition::Identity(group)))
        }
        Kind::Other(what) => no_rule(above.at, what),
        _ => no_rule(above.at, "groups that are no identity"),
    }
}
