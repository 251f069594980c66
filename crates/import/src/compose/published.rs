//! `ports` of a service, in both forms.

use super::{Work, has_no_network, service::text};
use crate::{
    ports::{self, Port, Unpublished},
    report::Fate,
    yaml::{Node, Value},
};

const KEY: &str = "ports";

impl Work<'_> {
    /// When network and privileges are known.
    pub(super) fn ports(&mut self, service: &Node) {
        let Some(node) = service.get(KEY).filter(|node| node.value != Value::Null) else { return };
        if let Some(unpublished) = Unpublished::of(&self.manifest, has_no_network(service)) {
            let (fate, why) = unpublished.said();
            return self.say(KEY, node, fate, why);
        }
        let Value::List(items) = &node.value else {
            return self.say(KEY, node, Fate::Refused, "it is no list");
        };
        for item in items {
            let done =
                read(item).and_then(|(name, all)| ports::publish(&mut self.manifest, name.as_deref(), &all));
            match done {
                Ok(()) => self.say(KEY, item, Fate::Approximated, ports::HOW),
                Err(why) => self.say(KEY, item, Fate::Refused, why),
            }
        }
    }
}

/// Of what compose would put in, the default is taken for a port alone: what stands in place of an address may be one that fewer reach.
fn written(node: &Node) -> Result<String, String> {
    let is_port = |part: &str| {
        let default = part.split_once('}').and_then(|(inside, _)| inside.split_once('-'));
        default.is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        })
    };
    match &node.value {
        Value::Text(text) if !text.split("${").skip(1).all(is_port) => {
            Err(format!("{text:?} has a variable of compose where no default port stands; write it in"))
        }
        _ => text(node),
    }
}

/// One of them, with its name.
fn read(item: &Node) -> Result<(Option<String>, Vec<Port>), String> {
    if !matches!(item.value, Value::Map(_)) {
        return Ok((None, ports::short(&written(item)?)?));
    }
    let known = ["target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"];
    if let Some((other, _)) = item.entries().iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return Err(format!("a port has no {other:?} that is known here"));
    }
    let field = |name: &str| item.get(name).map(written).transpose();
    if let Some(protocol) = field("protocol")? {
        ports::is_tcp(&protocol)?;
    }
    let host = field("host_ip")?.map(|host| ports::address(&host)).transpose()?;
    let target = field("target")?.ok_or("it names no target")?;
    if target.contains('-') {
        return Err(format!("{target:?} is no port of 1 to 65535"));
    }
    Ok((field("name")?, ports::pair(host, &field("published")?.unwrap_or_default(), &target)?))
}
