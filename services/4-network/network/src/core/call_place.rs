//! Where a call may lead to that a rule by URL allows: to an ordinary address, or to one that a rule names.

use ::core::net::IpAddr;

use chain::payload::network::UrlRule;

use super::{
    CallError, Target, User, names_address,
    special::{is_hosts, special},
};

/// What is special, or this host's, is reached where a rule names it, and nowhere else. `hosts` are the addresses of this
/// host; none while they are not known, and then each may be one.
pub fn check_place(
    rules: &[UrlRule],
    user: &User,
    target: &Target,
    ip: IpAddr,
    hosts: Option<&[IpAddr]>,
) -> Result<(), CallError> {
    let what = match special(ip) {
        Some(kind) => format!("a {} address", kind.name()),
        None if !is_hosts(ip, hosts) => return Ok(()),
        None if hosts.is_none() => {
            "and which addresses this host has is not known yet (driver_manager says it)".to_owned()
        }
        None => "an address of this host".to_owned(),
    };
    if names_address(rules, user, target, ip) {
        return Ok(());
    }
    let text = format!("{} is at {ip}, {what}; a rule that allows it names the address", target.host());
    Err(CallError::PolicyDenied(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Schemes;
    use chain::payload::network::ProcessClass;

    fn refusal(pattern: &str, ip: &str, hosts: Option<&[IpAddr]>) -> Option<String> {
        let rule = UrlRule {
            id: "r".to_owned(),
            applies_to: ProcessClass::Application,
            url_pattern: pattern.to_owned(),
            allow: true,
            priority: 1,
        };
        let user = User { class: ProcessClass::Application, name: "app".to_owned() };
        let target = Target::parse("https://api.example.com/", Schemes::Http).unwrap();
        check_place(&[rule], &user, &target, ip.parse().unwrap(), hosts).err().map(|error| error.to_string())
    }

    #[test]
    fn an_address_of_this_host_is_named_or_refused() {
        let hosts: Vec<IpAddr> =
            ["127.0.0.1", "192.0.2.9", "2001:db8::9"].iter().map(|ip| ip.parse().unwrap()).collect();
        for ip in ["192.0.2.9", "2001:db8::9", "::ffff:192.0.2.9"] {
            let text = refusal("*", ip, Some(&hosts)).unwrap();
            assert!(text.contains("an address of this host"), "{text}");
        }
        assert_eq!(refusal("192.0.2.9", "192.0.2.9", Some(&hosts)), None);
        assert_eq!(refusal("https://[2001:db8::9]/*", "2001:db8::9", Some(&hosts)), None);
        assert_eq!(refusal("*", "192.0.2.8", Some(&hosts)), None);
        assert!(refusal("*", "127.0.0.1", Some(&hosts)).unwrap().contains("loopback"));
    }

    #[test]
    fn while_it_is_not_known_which_each_may_be_one() {
        let text = refusal("*", "192.0.2.8", None).unwrap();
        assert!(text.contains("is not known yet"), "{text}");
        assert_eq!(refusal("192.0.2.8", "192.0.2.8", None), None);
        assert!(refusal("*", "10.0.0.1", None).unwrap().contains("private"));
        assert_eq!(refusal("127.0.0.1", "127.0.0.1", None), None, "the loopback is told by itself");
    }
}
