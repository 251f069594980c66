use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} is no entry type; new codes begin at 113 and need a newer reader")]
pub struct UnknownEntryType(pub u32);

macro_rules! entry_types {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What an entry records. The code stands in the header and is final (AX-23 to AX-28).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u32)]
        pub enum EntryType {
            $($(#[$doc])* $name = $code,)*
        }

        impl EntryType {
            /// Every type, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            pub const fn from_code(code: u32) -> Result<Self, UnknownEntryType> {
                match code {
                    $($code => Ok(Self::$name),)*
                    other => Err(UnknownEntryType(other)),
                }
            }

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The type with this name, as `name()` writes it.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }
    };
}

entry_types! {
    Genesis = 0,
    Shutdown = 1,
    CapabilityGrant = 10,
    CapabilityRevoke = 11,
    PolicyUpdate = 12,
    ServiceRegister = 20,
    ServiceStart = 21,
    ServiceStop = 22,
    ServiceFailed = 23,
    ProcessCreate = 30,
    ProcessExit = 31,
    ProcessKill = 32,
    FileCreate = 40,
    FileDelete = 41,
    FileMetadataUpdate = 42,
    DirectoryCreate = 43,
    DirectoryDelete = 44,
    BlockAllocation = 50,
    BlockDeallocation = 51,
    SnapshotCreate = 52,
    SnapshotRestore = 53,
    ConnectionAuthorize = 60,
    ConnectionRevoke = 61,
    /// Rules by URL, limits and authorities of the network service, as a whole.
    NetworkPolicyUpdate = 62,
    JobSubmit = 70,
    JobStart = 71,
    JobComplete = 72,
    JobFailed = 73,
    ImageImport = 76,
    ImageRemove = 77,
    Receipt = 80,
    PolicyDecision = 85,
    PolicyRuleAdded = 86,
    PolicyRuleRemoved = 87,
    IdentityCreated = 88,
    IdentityUpdated = 89,
    CredentialAdded = 90,
    CredentialRevoked = 91,
    KeyUsage = 92,
    ImageStage = 100,
    ImageActivate = 101,
    ImageRollback = 102,
    LogArchive = 110,
    ClockSet = 111,
    ServiceLate = 112,
}

impl std::fmt::Display for EntryType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: AX-23, AX-24, AX-25, AX-26, AX-27
    #[test]
    fn codes_are_the_specified_ones() {
        let codes = |names: &[&str]| -> Vec<u32> {
            names
                .iter()
                .map(|name| EntryType::from_name(name).unwrap_or_else(|| panic!("no {name}")).code())
                .collect()
        };
        let system = ["Genesis", "Shutdown", "CapabilityGrant", "CapabilityRevoke", "PolicyUpdate"];
        assert_eq!(codes(&system), [0, 1, 10, 11, 12]);
        let running = [
            "ServiceRegister",
            "ServiceStart",
            "ServiceStop",
            "ServiceFailed",
            "ProcessCreate",
            "ProcessExit",
            "ProcessKill",
        ];
        assert_eq!(codes(&running), [20, 21, 22, 23, 30, 31, 32]);
        let storage = [
            "FileCreate",
            "FileDelete",
            "FileMetadataUpdate",
            "DirectoryCreate",
            "DirectoryDelete",
            "BlockAllocation",
            "BlockDeallocation",
            "SnapshotCreate",
            "SnapshotRestore",
        ];
        assert_eq!(codes(&storage), [40, 41, 42, 43, 44, 50, 51, 52, 53]);
        let jobs = [
            "ConnectionAuthorize",
            "ConnectionRevoke",
            "JobSubmit",
            "JobStart",
            "JobComplete",
            "JobFailed",
            "Receipt",
        ];
        assert_eq!(codes(&jobs), [60, 61, 70, 71, 72, 73, 80]);
        assert_eq!(codes(&["ImageImport", "ImageRemove"]), [76, 77]);
        assert_eq!(codes(&["NetworkPolicyUpdate"]), [62]);
        let authority = [
            "PolicyDecision",
            "PolicyRuleAdded",
            "PolicyRuleRemoved",
            "IdentityCreated",
            "IdentityUpdated",
            "CredentialAdded",
            "CredentialRevoked",
            "KeyUsage",
        ];
        assert_eq!(codes(&authority), [85, 86, 87, 88, 89, 90, 91, 92]);
    }

    #[test]
    fn a_type_is_shown_by_its_name() {
        for kind in EntryType::ALL {
            assert_eq!(EntryType::from_name(&kind.to_string()).map(EntryType::code), Some(kind.code()));
        }
    }

    /// covers: AX-28
    #[test]
    fn update_codes_and_nothing_else_are_known() {
        let updates = [EntryType::ImageStage, EntryType::ImageActivate, EntryType::ImageRollback];
        assert_eq!(updates.map(EntryType::code), [100, 101, 102]);
        let noticed = [EntryType::LogArchive, EntryType::ClockSet, EntryType::ServiceLate];
        assert_eq!(noticed.map(EntryType::code), [110, 111, 112]);
        let known: Vec<u32> = (0..200).filter(|code| EntryType::from_code(*code).is_ok()).collect();
        assert_eq!(known, EntryType::ALL.iter().map(|kind| kind.code()).collect::<Vec<_>>());
        assert_eq!(known.len(), 45);
        assert_eq!(EntryType::from_code(2), Err(UnknownEntryType(2)));
        assert_eq!(EntryType::from_code(u32::MAX), Err(UnknownEntryType(u32::MAX)));
    }
}
