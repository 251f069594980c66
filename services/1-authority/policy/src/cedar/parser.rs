//! Policies: annotations, head and clauses.

use super::{
    EXPRESSION_DEPTH_MAX, Fault, POLICIES_MAX,
    ast::{Clause, Expression, Kind, Policy, Relation, Variable},
    lexer::{Lexer, Token},
    quoted,
};

/// One token ahead.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    pub(super) at: usize,
    pub(super) token: Token<'a>,
    depth: usize,
}

pub(super) type Parsed<T> = Result<T, Fault>;

pub(super) fn policies(text: &str) -> Parsed<Vec<Policy>> {
    let mut parser = Parser::new(text)?;
    let mut all = Vec::new();
    while parser.token != Token::End {
        if all.len() == POLICIES_MAX {
            return Err(Fault::new(parser.at, format!("a file has at most {POLICIES_MAX} policies")));
        }
        all.push(parser.policy()?);
    }
    Ok(all)
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parsed<Self> {
        let mut parser = Self { lexer: Lexer::new(text), at: 0, token: Token::End, depth: 0 };
        parser.advance()?;
        Ok(parser)
    }

    pub(super) fn advance(&mut self) -> Parsed<()> {
        (self.at, self.token) = self.lexer.next()?;
        Ok(())
    }

    pub(super) fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        let found = match self.token {
            Token::End => "the end of the file".to_owned(),
            Token::Text(_) => "a string".to_owned(),
            Token::Word(text) | Token::Number(text) | Token::Slot(text) | Token::Sign(text) => {
                format!("`{}`", text.chars().take(40).collect::<String>())
            }
        };
        Err(Fault::new(self.at, format!("expected {wanted}, found {found}")))
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.token, Token::Word(found) if found == word)
    }

    /// Takes the sign if it is next.
    pub(super) fn accept(&mut self, sign: &str) -> Parsed<bool> {
        let found = self.is(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn accept_word(&mut self, word: &str) -> Parsed<bool> {
        let found = self.is_word(word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.accept(sign)? { Ok(()) } else { self.unexpected(&format!("`{sign}`")) }
    }

    pub(super) fn word(&mut self) -> Parsed<&'a str> {
        match self.token {
            Token::Word(word) => {
                self.advance()?;
                Ok(word)
            }
            _ => self.unexpected("a name"),
        }
    }

    pub(super) fn string(&mut self) -> Parsed<String> {
        match self.token {
            Token::Text(raw) => {
                let text = quoted::string(raw, self.at + 1)?;
                self.advance()?;
                Ok(text)
            }
            _ => self.unexpected("a string"),
        }
    }

    /// One level further down; what nests too deeply is refused before it is read.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(Fault::new(self.at, format!("nested deeper than {EXPRESSION_DEPTH_MAX}")));
        }
        self.depth += 1;
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    /// Items with commas between them and perhaps one behind the last, up to and with the closing sign.
    pub(super) fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut all = Vec::new();
        while !self.is(close) {
            all.push(item(self)?);
            if !self.accept(",")? {
                break;
            }
        }
        self.expect(close)?;
        Ok(all)
    }

    fn policy(&mut self) -> Parsed<Policy> {
        let at = self.at;
        let annotations = self.annotations()?;
        let permit = self.is_word("permit");
        if !permit && !self.is_word("forbid") {
            return self.unexpected("`permit` or `forbid`");
        }
        self.advance()?;
        self.expect("(")?;
        let mut scope = Vec::new();
        for variable in [Variable::Principal, Variable::Action, Variable::Resource] {
            scope.extend(self.constraint(variable)?);
            if variable != Variable::Resource {
                self.expect(",")?;
            }
        }
        self.accept(",")?;
        self.expect(")")?;
        let mut clauses = Vec::new();
        while !self.is(";") {
            let unless = self.is_word("unless");
            if !unless && !self.is_word("when") {
                return self.unexpected("`when`, `unless` or `;`");
            }
            self.advance()?;
            self.expect("{")?;
            clauses.push(Clause { unless, expression: self.expression()? });
            self.expect("}")?;
        }
        self.expect(";")?;
        Ok(Policy { at, annotations, permit, scope, clauses })
    }

    fn annotations(&mut self) -> Parsed<Vec<(String, String)>> {
        let mut all: Vec<(String, String)> = Vec::new();
        while self.accept("@")? {
            let at = self.at;
            let key = self.word()?.to_owned();
            let mut value = String::new();
            if self.accept("(")? {
                value = self.string()?;
                self.expect(")")?;
            }
            if all.iter().any(|(known, _)| *known == key) {
                return Err(Fault::new(at, format!("the annotation `{key}` stands there twice")));
            }
            all.push((key, value));
        }
        Ok(all)
    }

    /// `principal`, or with `==`, `in`, `is` or `is … in`.
    fn constraint(&mut self, variable: Variable) -> Parsed<Option<Expression>> {
        if !self.accept_word(variable.name())? {
            return self.unexpected(&format!("`{}`", variable.name()));
        }
        let at = self.at;
        let subject = Expression::new(at, Kind::Variable(variable));
        if variable != Variable::Action && self.accept_word("is")? {
            let entity_type = self.name()?;
            let above = if self.accept_word("in")? { Some(Box::new(self.named_entity()?)) } else { None };
            return Ok(Some(Expression::new(at, Kind::Is(Box::new(subject), entity_type, above))));
        }
        let relation = match self.token {
            Token::Sign("==") => Relation::Equal,
            Token::Word("in") => Relation::In,
            _ => return Ok(None),
        };
        self.advance()?;
        let among = relation == Relation::In && variable == Variable::Action && self.is("[");
        let object = if among {
            let at = self.at;
            self.advance()?;
            Expression::new(at, Kind::Set(self.list("]", Self::named_entity)?))
        } else {
            self.named_entity()?
        };
        Ok(Some(Expression::new(at, Kind::Relation(relation, Box::new([subject, object])))))
    }

    /// An entity, or the slot of a template.
    fn named_entity(&mut self) -> Parsed<Expression> {
        let expression = self.deeper(Self::primary)?;
        match expression.kind {
            Kind::Entity(_) | Kind::Other("a slot of a template") => Ok(expression),
            _ => Err(Fault::new(expression.at, "expected an entity like `Identity::\"…\"`")),
        }
    }
}
