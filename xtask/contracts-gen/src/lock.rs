//! The surface that clients were built against, as text: one line per field, enum value and operation.
//!
//! ```text
//! bailiwick.policy.v1.Rule.priority = 3:uint32
//! bailiwick.policy.v1.Effect.EFFECT_ALLOW = 1
//! bailiwick.policy.v1.Policy/Evaluate = bailiwick.policy.v1.EvaluateRequest -> bailiwick.policy.v1.EvaluateReply
//! ```
//! A line may be added. A line that vanishes or changes breaks somebody: binary clients go by number and type, the
//! JSON face goes by name. `optional` and `oneof` are not recorded, since neither changes bytes or names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const HEADER: &str = "# What clients rely on: fields, enum values, operations. Written by `cargo xtask contracts`; lines are only added.\n";

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Surface {
    entries: BTreeMap<String, String>,
}

impl Surface {
    pub(crate) fn of(set: &FileDescriptorSet) -> Self {
        let mut surface = Self::default();
        for file in set.file.iter().filter(|f| !f.package().starts_with("google.")) {
            for message in &file.message_type {
                surface.add_message(file.package(), message);
            }
            for value in &file.enum_type {
                surface.add_enum(file.package(), value);
            }
            for service in &file.service {
                surface.add_service(file.package(), service);
            }
        }
        surface
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once(" = ") else {
                bail!("line {}: expected `name = value`, found `{line}`", number + 1);
            };
            if entries.insert(name.to_owned(), value.to_owned()).is_some() {
                bail!("line {}: `{name}` stands twice", number + 1);
            }
        }
        Ok(Self { entries })
    }

    pub(crate) fn to_text(&self) -> String {
        let lines = self.entries.iter().map(|(name, value)| format!("{name} = {value}\n"));
        std::iter::once(HEADER.to_owned()).chain(lines).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a client built against `self` would miss in `now`. A package that is gone altogether is no break if a
    /// later version of it stands there: clients of the old path get a clean "unimplemented", not a wrong reading.
    pub(crate) fn broken_by(&self, now: &Self) -> Vec<String> {
        let packages_now = now.packages();
        let mut breaks = Vec::new();
        for (name, old) in &self.entries {
            match now.entries.get(name) {
                Some(new) if new == old => {}
                Some(new) => breaks.push(format!("{name}: was `{old}`, is `{new}`")),
                None if superseded(package_of(name), &packages_now) => {}
                None => breaks.push(format!("{name}: was `{old}`, is gone")),
            }
        }
        breaks
    }

    fn packages(&self) -> BTreeSet<&str> {
        self.entries.keys().map(|name| package_of(name)).collect()
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let scope = format!("{scope}.{}", message.name());
        for field in &message.field {
            self.entries.insert(format!("{scope}.{}", field.name()), field_text(field));
        }
        for nested in &message.nested_type {
            self.add_message(&scope, nested);
        }
        for nested in &message.enum_type {
            self.add_enum(&scope, nested);
        }
    }

    fn add_enum(&mut self, scope: &str, declared: &EnumDescriptorProto) {
        for value in &declared.value {
            let name = format!("{scope}.{}.{}", declared.name(), value.name());
            self.entries.insert(name, value.number().to_string());
        }
    }

    fn add_service(&mut self, scope: &str, service: &ServiceDescriptorProto) {
        for method in &service.method {
            let side = |streams: bool, name: &str| {
                let name = name.trim_start_matches('.');
                if streams { format!("stream {name}") } else { name.to_owned() }
            };
            let input = side(method.client_streaming(), method.input_type());
            let output = side(method.server_streaming(), method.output_type());
            let name = format!("{scope}.{}/{}", service.name(), method.name());
            self.entries.insert(name, format!("{input} -> {output}"));
        }
    }
}

fn field_text(field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    format!("{}:{repeated}{kind}", field.number())
}

/// `bailiwick.policy.v1` of `bailiwick.policy.v1.Rule.priority`: everything up to the version.
fn package_of(name: &str) -> &str {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if version_of(part).is_some() {
            return name.get(..end).unwrap_or(name);
        }
        end += 1;
    }
    name
}

fn version_of(part: &str) -> Option<u32> {
    part.strip_prefix('v')?.parse().ok()
}

fn superseded(package: &str, now: &BTreeSet<&str>) -> bool {
    let split = |p: &str| p.rsplit_once('.').and_then(|(stem, v)| Some((stem.to_owned(), version_of(v)?)));
    let Some((stem, version)) = split(package) else { return false };
    !now.contains(package) && now.iter().filter_map(|p| split(p)).any(|(s, v)| s == stem && v > version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(lines: &[&str]) -> Surface {
        Surface::parse(&lines.join("\n")).unwrap()
    }

    #[track_caller]
    fn check(before: &[&str], now: &[&str], breaks: &[&str]) {
        assert_eq!(surface(before).broken_by(&surface(now)), breaks);
    }

    const FIELD: &str = "b.p.v1.Rule.priority = 3:uint32";

    #[test]
    fn additions_break_nobody() {
        check(&[FIELD], &[FIELD, "b.p.v1.Rule.name = 4:string", "b.p.v1.P/New = b.p.v1.A -> b.p.v1.B"], &[]);
    }

    #[test]
    fn renumbered_retyped_and_removed_names_break() {
        check(
            &[FIELD],
            &["b.p.v1.Rule.priority = 4:uint32"],
            &["b.p.v1.Rule.priority: was `3:uint32`, is `4:uint32`"],
        );
        check(
            &[FIELD],
            &["b.p.v1.Rule.priority = 3:string"],
            &["b.p.v1.Rule.priority: was `3:uint32`, is `3:string`"],
        );
        check(
            &[FIELD],
            &["b.p.v1.Rule.other = 1:string"],
            &["b.p.v1.Rule.priority: was `3:uint32`, is gone"],
        );
        check(
            &["b.p.v1.P/Op = b.p.v1.A -> b.p.v1.B"],
            &[],
            &["b.p.v1.P/Op: was `b.p.v1.A -> b.p.v1.B`, is gone"],
        );
        check(&["b.p.v1.E.ALLOW = 1"], &["b.p.v1.E.DENY = 2"], &["b.p.v1.E.ALLOW: was `1`, is gone"]);
    }

    #[test]
    fn a_new_version_replaces_a_package_but_only_as_a_whole() {
        check(&[FIELD], &["b.p.v2.Rule.other = 1:string"], &[]);
        check(
            &[FIELD],
            &["b.q.v2.Rule.other = 1:string"],
            &["b.p.v1.Rule.priority: was `3:uint32`, is gone"],
        );
        check(
            &[FIELD, "b.p.v1.Rule.name = 4:string"],
            &[FIELD, "b.p.v2.Rule.name = 4:string"],
            &["b.p.v1.Rule.name: was `4:string`, is gone"],
        );
    }

    #[test]
    fn text_round_trips_and_bad_lines_are_refused() {
        let before = surface(&[FIELD, "b.p.v1.P/Op = stream b.p.v1.A -> b.p.v1.B"]);
        assert_eq!(Surface::parse(&before.to_text()).unwrap(), before);
        assert!(Surface::parse("b.p.v1.Rule.priority 3").is_err());
        assert!(Surface::parse(&format!("{FIELD}\n{FIELD}")).is_err());
    }

    #[test]
    fn fields_say_number_repetition_and_type() {
        let mut field = FieldDescriptorProto { number: Some(7), ..Default::default() };
        field.set_type(Type::Bytes);
        assert_eq!(field_text(&field), "7:bytes");
        field.set_type(Type::Message);
        field.type_name = Some(".b.p.v1.Rule".to_owned());
        field.set_label(Label::Repeated);
        assert_eq!(field_text(&field), "7:repeated b.p.v1.Rule");
    }
}
