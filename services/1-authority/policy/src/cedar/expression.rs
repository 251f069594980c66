//! Cedar's expressions, by descent along its grammar. Chains are lists: only what nests recurses, and that is bounded.

use super::{
    Fault,
    ast::{Entity, Expression, Kind, Relation, Variable},
    lexer::Token,
    parser::{Parsed, Parser},
    quoted,
};

/// `!` or `-` in a row, as in Cedar.
const SIGNS_MAX: usize = 4;
/// Words that no entity, attribute or function is called by at the beginning of an expression.
const RESERVED: [&str; 9] = ["true", "false", "if", "then", "else", "in", "is", "like", "has"];

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Parsed<Expression> {
        self.deeper(|parser| {
            let at = parser.at;
            if !parser.accept_word("if")? {
                return parser.or();
            }
            let condition = parser.expression()?;
            parser.keyword("then")?;
            let then = parser.expression()?;
            parser.keyword("else")?;
            let otherwise = parser.expression()?;
            Ok(Expression::new(at, Kind::If(Box::new([condition, then, otherwise]))))
        })
    }

    fn keyword(&mut self, word: &str) -> Parsed<()> {
        if self.accept_word(word)? { Ok(()) } else { self.unexpected(&format!("`{word}`")) }
    }

    fn or(&mut self) -> Parsed<Expression> {
        self.chain("||", Self::and, Kind::Or)
    }

    fn and(&mut self) -> Parsed<Expression> {
        self.chain("&&", Self::relation, Kind::And)
    }

    fn chain(
        &mut self,
        sign: &str,
        member: impl Fn(&mut Self) -> Parsed<Expression>,
        kind: impl FnOnce(Vec<Expression>) -> Kind,
    ) -> Parsed<Expression> {
        let first = member(self)?;
        if !self.is(sign) {
            return Ok(first);
        }
        let at = first.at;
        let mut all = vec![first];
        while self.accept(sign)? {
            all.push(member(self)?);
        }
        Ok(Expression::new(at, kind(all)))
    }

    fn relation(&mut self) -> Parsed<Expression> {
        let subject = self.sum()?;
        let at = subject.at;
        let relation = match self.token {
            Token::Sign("==") => Relation::Equal,
            Token::Sign("!=") => Relation::NotEqual,
            Token::Sign("<") => Relation::Less,
            Token::Sign("<=") => Relation::LessOrEqual,
            Token::Sign(">") => Relation::Greater,
            Token::Sign(">=") => Relation::GreaterOrEqual,
            Token::Word("in") => Relation::In,
            Token::Word("like") => return self.like(subject),
            Token::Word("has") => return self.has(subject),
            Token::Word("is") => {
                self.advance()?;
                let entity_type = self.name()?;
                let above = if self.accept_word("in")? { Some(Box::new(self.sum()?)) } else { None };
                return Ok(Expression::new(at, Kind::Is(Box::new(subject), entity_type, above)));
            }
            _ => return Ok(subject),
        };
        self.advance()?;
        let object = self.sum()?;
        Ok(Expression::new(at, Kind::Relation(relation, Box::new([subject, object]))))
    }

    fn like(&mut self, subject: Expression) -> Parsed<Expression> {
        self.advance()?;
        let Token::Text(raw) = self.token else { return self.unexpected("a pattern in quotes") };
        let pieces = quoted::pattern(raw, self.at + 1)?;
        self.advance()?;
        Ok(Expression::new(subject.at, Kind::Like(Box::new(subject), pieces)))
    }

    fn has(&mut self, subject: Expression) -> Parsed<Expression> {
        self.advance()?;
        let names = match self.token {
            Token::Text(_) => vec![self.string()?],
            _ => {
                let mut names = vec![self.word()?.to_owned()];
                while self.accept(".")? {
                    names.push(self.word()?.to_owned());
                }
                names
            }
        };
        Ok(Expression::new(subject.at, Kind::Has(Box::new(subject), names)))
    }

    /// Sums and products: no rule calculates.
    fn sum(&mut self) -> Parsed<Expression> {
        let mut first = self.unary()?;
        while let Token::Sign("+" | "-" | "*") = self.token {
            self.advance()?;
            self.unary()?;
            first.kind = Kind::Other("arithmetic");
        }
        Ok(first)
    }

    fn unary(&mut self) -> Parsed<Expression> {
        let at = self.at;
        let sign = if self.is("!") { "!" } else { "-" };
        let mut count = 0;
        while self.accept(sign)? {
            count += 1;
            if count > SIGNS_MAX {
                return Err(Fault::new(at, format!("at most {SIGNS_MAX} `{sign}` in a row")));
            }
        }
        let negative = sign == "-" && count > 0;
        let mut member = self.member()?;
        match member.kind {
            Kind::Number(number) if number > i64::MAX as u64 + u64::from(negative) => {
                return Err(Fault::new(member.at, format!("the number {number} is too large")));
            }
            _ if negative => member.kind = Kind::Other("a negative number"),
            _ if count > 0 => {
                // Two negations are none, but what they negate is a truth value.
                for _ in 0..count {
                    member = Expression::new(at, Kind::Not(Box::new(member)));
                }
            }
            _ => {}
        }
        Ok(member)
    }

    fn member(&mut self) -> Parsed<Expression> {
        let mut member = self.deeper(Self::primary)?;
        loop {
            let variable = match member.kind {
                Kind::Variable(variable) => Some(variable),
                _ => None,
            };
            let attribute = if self.accept(".")? {
                Some(self.word()?.to_owned())
            } else if self.accept("[")? {
                let name = self.string()?;
                self.expect("]")?;
                Some(name)
            } else if self.accept("(")? {
                self.list(")", Self::expression)?;
                None
            } else {
                return Ok(member);
            };
            member.kind = match (variable, attribute) {
                (Some(variable), Some(name)) => Kind::Attribute(variable, name),
                (_, Some(_)) => Kind::Other("an attribute of an attribute"),
                (_, None) => Kind::Other("a function"),
            };
        }
    }

    pub(super) fn primary(&mut self) -> Parsed<Expression> {
        let at = self.at;
        let kind = match self.token {
            Token::Text(_) => Kind::Text(self.string()?),
            Token::Number(digits) => {
                let number = digits.parse().map_err(|_| Fault::new(at, "this number is too large"))?;
                self.advance()?;
                Kind::Number(number)
            }
            Token::Slot(_) => {
                self.advance()?;
                Kind::Other("a slot of a template")
            }
            Token::Sign("(") => {
                self.advance()?;
                let inner = self.expression()?;
                self.expect(")")?;
                inner.kind
            }
            Token::Sign("[") => {
                self.advance()?;
                Kind::Set(self.list("]", Self::expression)?)
            }
            Token::Sign("{") => {
                self.advance()?;
                self.list("}", Self::field)?;
                Kind::Other("a record")
            }
            Token::Word("true") => self.bool(true)?,
            Token::Word("false") => self.bool(false)?,
            Token::Word(word) if !RESERVED.contains(&word) => self.named(word)?,
            _ => return self.unexpected("an expression"),
        };
        Ok(Expression::new(at, kind))
    }

    fn bool(&mut self, value: bool) -> Parsed<Kind> {
        self.advance()?;
        Ok(Kind::Bool(value))
    }

    fn field(&mut self) -> Parsed<()> {
        match self.token {
            Token::Word(_) => drop(self.word()?),
            _ => drop(self.string()?),
        }
        self.expect(":")?;
        self.expression().map(drop)
    }

    /// A variable, an entity, or the name of a function.
    fn named(&mut self, first: &str) -> Parsed<Kind> {
        let at = self.at;
        let mut path = first.to_owned();
        self.advance()?;
        while self.accept("::")? {
            if let Token::Text(_) = self.token {
                return Ok(Kind::Entity(Entity { entity_type: path, id: self.string()? }));
            }
            path = format!("{path}::{}", self.word()?);
        }
        match Variable::named(&path) {
            Some(variable) => Ok(Kind::Variable(variable)),
            None if self.is("(") => Ok(Kind::Other("a function")),
            None => Err(Fault::new(
                at,
                format!("nothing is called `{}`", path.chars().take(80).collect::<String>()),
            )),
        }
    }

    /// A type's name with its namespaces.
    pub(super) fn name(&mut self) -> Parsed<String> {
        let mut path = self.word()?.to_owned();
        while self.accept("::")? {
            path = format!("{path}::{}", self.word()?);
        }
        Ok(path)
    }
}
