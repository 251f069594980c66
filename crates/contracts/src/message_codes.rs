//! The message codes of ZOS (SUP-106), and the methods that carry them here. This is their one definition: a program takes them
//! from here, whatever the service.

use std::ops::RangeInclusive;

use thiserror::Error;

/// Codes that are kept for one kind of service, whether or not they are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    pub name: &'static str,
    pub codes: RangeInclusive<u16>,
}

/// Kept for the network service (open point 14).
pub const NETWORK_CODES: RangeInclusive<u16> = 0x9000..=0x903f;

/// Every one, in the order of their codes.
pub const AREAS: [Area; 7] = [
    Area { name: "init", codes: 0x1000..=0x100f },
    Area { name: "supervision", codes: 0x2000..=0x200f },
    Area { name: "permissions", codes: 0x2010..=0x201f },
    Area { name: "identity", codes: 0x7000..=0x70ff },
    Area { name: "files", codes: 0x8000..=0x80ff },
    Area { name: "network", codes: NETWORK_CODES },
    Area { name: "key_store", codes: 0xa000..=0xa0ff },
];

/// NET-41: said to whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:#06x} is no message code")]
pub struct UnknownMessageCode(pub u16);

/// In which direction a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToService,
    FromService,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageCode {
    pub code: u16,
    pub name: &'static str,
    pub way: Way,
    /// `/bailiwick.network.v1.Network/…`: what is called to send it, or answers with it.
    pub path: &'static str,
}

macro_rules! codes {
    ($list:ident $service:literal $($code:literal $name:ident $way:ident $method:literal,)*) => {
        $(pub const $name: u16 = $code;)*

        /// Of this contract.
        pub const $list: &[MessageCode] = &[
            $(MessageCode {
                code: $code,
                name: stringify!($name),
                way: Way::$way,
                path: concat!("/bailiwick.", $service, "/", $method),
            },)*
        ];
    };
}

codes! {
    LIFECYCLE_MESSAGES "lifecycle.v1.Lifecycle"
    0x1000 MSG_READY FromService "Start",
    0x1001 MSG_HEALTH_CHECK ToService "HealthCheck",
    0x1002 MSG_HEALTH_OK FromService "HealthCheck",
}

codes! {
    SUPERVISOR_MESSAGES "supervisor.v1.Supervisor"
    0x2000 MSG_SERVICE_START ToService "StartService",
    0x2001 MSG_SERVICE_STOP ToService "StopService",
    0x2002 MSG_SERVICE_RESTART ToService "RestartService",
    0x2003 MSG_SERVICE_STATUS ToService "GetStatus",
    0x2004 MSG_SERVICE_LIST ToService "ListServices",
}

codes! {
    NETWORK_MESSAGES "network.v1.Network"
    0x9000 MSG_NET_REQUEST ToService "Fetch",
    0x9001 MSG_NET_RESPONSE FromService "Fetch",
    0x9010 MSG_WS_OPEN ToService "WebSocketOpen",
    0x9011 MSG_WS_OPENED FromService "WebSocketOpen",
    0x9012 MSG_WS_MESSAGE Both "WebSocketSend",
    0x9013 MSG_WS_CLOSE ToService "WebSocketClose",
    0x9014 MSG_WS_CLOSED FromService "WebSocketOpen",
    0x9015 MSG_WS_ERROR FromService "WebSocketOpen",
    0x9020 MSG_NET_POLICY_QUERY ToService "PolicyQuery",
    0x9021 MSG_NET_POLICY_RESPONSE FromService "PolicyQuery",
    0x9022 MSG_NET_POLICY_UPDATE ToService "PolicyUpdate",
    0x9030 MSG_DNS_RESOLVE ToService "Resolve",
    0x9031 MSG_DNS_RESPONSE FromService "Resolve",
}

impl MessageCode {
    /// Every one that is in use.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        LIFECYCLE_MESSAGES.iter().chain(SUPERVISOR_MESSAGES).chain(NETWORK_MESSAGES)
    }

    pub fn find(code: u16) -> Result<&'static Self, UnknownMessageCode> {
        Self::all().find(|known| known.code == code).ok_or(UnknownMessageCode(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// covers: NET-38, NET-39, NET-40, NET-41
    #[test]
    fn codes_are_those_of_zos_and_each_has_a_method() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let network =
            set.file.iter().flat_map(|file| &file.service).find(|service| service.name() == "Network");
        let methods: Vec<String> = network
            .unwrap()
            .method
            .iter()
            .map(|method| format!("/bailiwick.network.v1.Network/{}", method.name()))
            .collect();
        for known in NETWORK_MESSAGES {
            assert!(methods.iter().any(|method| method == known.path), "{known:?}");
            assert!(NETWORK_CODES.contains(&known.code));
            assert_eq!(MessageCode::find(known.code), Ok(known));
        }
        let all: Vec<(u16, &str)> = NETWORK_MESSAGES.iter().map(|known| (known.code, known.name)).collect();
        let expected = [
            (0x9000, "MSG_NET_REQUEST"),
            (0x9001, "MSG_NET_RESPONSE"),
            (0x9010, "MSG_WS_OPEN"),
            (0x9011, "MSG_WS_OPENED"),
            (0x9012, "MSG_WS_MESSAGE"),
            (0x9013, "MSG_WS_CLOSE"),
            (0x9014, "MSG_WS_CLOSED"),
            (0x9015, "MSG_WS_ERROR"),
            (0x9020, "MSG_NET_POLICY_QUERY"),
            (0x9021, "MSG_NET_POLICY_RESPONSE"),
            (0x9022, "MSG_NET_POLICY_UPDATE"),
            (0x9030, "MSG_DNS_RESOLVE"),
            (0x9031, "MSG_DNS_RESPONSE"),
        ];
        assert_eq!(all, expected);
        for unknown in [0, 0x8fff, 0x9002, 0x9016, 0x9023, 0x9032, 0x9040, u16::MAX] {
            assert_eq!(MessageCode::find(unknown), Err(UnknownMessageCode(unknown)));
        }
    }

    /// covers: SUP-106
    #[test]
    fn all_codes_stand_in_one_place_each_in_its_area_with_a_method() {
        let ranges: Vec<(&str, u16, u16)> =
            AREAS.iter().map(|area| (area.name, *area.codes.start(), *area.codes.end())).collect();
        let expected = [
            ("init", 0x1000, 0x100f),
            ("supervision", 0x2000, 0x200f),
            ("permissions", 0x2010, 0x201f),
            ("identity", 0x7000, 0x70ff),
            ("files", 0x8000, 0x80ff),
            ("network", 0x9000, 0x903f),
            ("key_store", 0xa000, 0xa0ff),
        ];
        assert_eq!(ranges, expected);
        let area = |code: u16| AREAS.iter().filter(|area| area.codes.contains(&code)).collect::<Vec<_>>();
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let methods: std::collections::BTreeSet<String> = set
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .flat_map(|(package, service)| {
                service
                    .method
                    .iter()
                    .map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
            })
            .collect();
        for (list, name) in [
            (LIFECYCLE_MESSAGES, "init"),
            (SUPERVISOR_MESSAGES, "supervision"),
            (NETWORK_MESSAGES, "network"),
        ] {
            for known in list {
                let areas = area(known.code);
                assert_eq!(areas.iter().map(|area| area.name).collect::<Vec<_>>(), [name], "{known:?}");
                assert!(methods.contains(known.path), "{known:?}");
            }
        }
        let numbers: Vec<(u16, &str)> = LIFECYCLE_MESSAGES
            .iter()
            .chain(SUPERVISOR_MESSAGES)
            .map(|known| (known.code, known.name))
            .collect();
        let expected = [
            (0x1000, "MSG_READY"),
            (0x1001, "MSG_HEALTH_CHECK"),
            (0x1002, "MSG_HEALTH_OK"),
            (0x2000, "MSG_SERVICE_START"),
            (0x2001, "MSG_SERVICE_STOP"),
            (0x2002, "MSG_SERVICE_RESTART"),
            (0x2003, "MSG_SERVICE_STATUS"),
            (0x2004, "MSG_SERVICE_LIST"),
        ];
        assert_eq!(numbers, expected);
        // Each number and each name is one message.
        let all: Vec<&MessageCode> = MessageCode::all().collect();
        for known in &all {
            assert_eq!(all.iter().filter(|it| it.code == known.code || it.name == known.name).count(), 1);
            assert_eq!(MessageCode::find(known.code), Ok(*known));
        }
        for unused in [0x0fff, 0x1003, 0x1010, 0x2005, 0x2010, 0x7000, 0x8000, 0xa000] {
            assert_eq!(MessageCode::find(unused), Err(UnknownMessageCode(unused)));
        }
    }
}
