//! The message codes of ZOS for what `network` does (NET-38 to NET-40), and the methods that carry them here.

use thiserror::Error;

/// Kept for the network service (open point 14).
pub const NETWORK_CODES: std::ops::RangeInclusive<u16> = 0x9000..=0x903f;

/// NET-41: said to whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:#06x} is no message code of the network service")]
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
    ($($code:literal $name:ident $way:ident $method:literal,)*) => {
        $(pub const $name: u16 = $code;)*

        /// Every one.
        pub const NETWORK_MESSAGES: &[MessageCode] = &[
            $(MessageCode {
                code: $code,
                name: stringify!($name),
                way: Way::$way,
                path: concat!("/bailiwick.network.v1.Network/", $method),
            },)*
        ];
    };
}

codes! {
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
    pub fn find(code: u16) -> Result<&'static Self, UnknownMessageCode> {
        NETWORK_MESSAGES.iter().find(|known| known.code == code).ok_or(UnknownMessageCode(code))
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
}
