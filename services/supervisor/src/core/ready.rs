//! What a service says of itself when it is ready (SUP-91), against the manifest by which it was started.

use thiserror::Error;

use crate::manifest::{Protocol, ServiceManifest};

/// As it came; a service of an older build leaves name and endpoint empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyReport {
    pub name: String,
    /// The socket on which clients find it, as they see it.
    pub endpoint: String,
    pub version: String,
    /// `name protocol/major.minor`, each.
    pub provides: Vec<String>,
}

/// Why what is ready is not what was started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotReady {
    #[error("it reports itself ready as {said:?}, and was started as {started:?}")]
    Name { started: String, said: String },
    #[error("it says that it is found at {said:?}; its clients look for it at {promised:?}")]
    Endpoint { promised: String, said: String },
    #[error("it does not provide {0}, which its manifest promises")]
    Missing(String),
}

impl ReadyReport {
    /// `endpoint` is where the manifests' sockets put it.
    pub fn check(&self, manifest: &ServiceManifest, endpoint: &str) -> Result<(), NotReady> {
        let started = &manifest.service.name;
        if !self.name.is_empty() && self.name != *started {
            return Err(NotReady::Name { started: started.clone(), said: self.name.clone() });
        }
        if !self.endpoint.is_empty() && self.endpoint != endpoint {
            let (promised, said) = (endpoint.to_owned(), self.endpoint.clone());
            return Err(NotReady::Endpoint { promised, said });
        }
        let missing = manifest.endpoints.iter().find(|promised| {
            !self.provides.iter().filter_map(|one| one.split_once(' ')).any(|(name, protocol)| {
                name == promised.name
                    && protocol.parse::<Protocol>().is_ok_and(|offered| {
                        offered.name == promised.protocol.name
                            && offered.version.serves(promised.protocol.version)
                    })
            })
        });
        match missing {
            Some(missing) => Err(NotReady::Missing(format!("{} {}", missing.name, missing.protocol))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: SUP-91
    #[test]
    fn what_is_ready_is_what_was_started_where_it_is_looked_for_with_what_it_promises() {
        let text = "version = 1\n[service]\nname = \"keys\"\nversion = \"1.0.0\"\nservice_type = \"Core\"\n\
                    [[endpoints]]\nname = \"keys.keys\"\nprotocol = \"Keys/1.1\"\n\
                    [[endpoints]]\nname = \"keys.more\"\nprotocol = \"More/1.0\"\n";
        let loaded = crate::manifest::parse("test", text).unwrap();
        let socket = "/run/bailiwick/keys.sock";
        let check = |change: &dyn Fn(&mut ReadyReport)| {
            let mut report = ReadyReport {
                name: "keys".to_owned(),
                endpoint: socket.to_owned(),
                version: "1.0.0".to_owned(),
                provides: vec!["keys.keys Keys/1.1".to_owned(), "keys.more More/1.0".to_owned()],
            };
            change(&mut report);
            report.check(&loaded.manifest, socket)
        };
        assert_eq!(check(&|_| {}), Ok(()));
        let said = || "policy".to_owned();
        let name = NotReady::Name { started: "keys".to_owned(), said: said() };
        assert_eq!(check(&|report| report.name = said()), Err(name));
        let endpoint = NotReady::Endpoint { promised: socket.to_owned(), said: said() };
        assert_eq!(check(&|report| report.endpoint = said()), Err(endpoint));
        // More than was promised is no fault, nor is a newer minor of it.
        assert_eq!(check(&|report| report.provides.push("keys.new New/1.0".to_owned())), Ok(()));
        assert_eq!(check(&|report| report.provides[0] = "keys.keys Keys/1.2".to_owned()), Ok(()));
        let missing = Err(NotReady::Missing("keys.keys Keys/1.1".to_owned()));
        for offered in [
            "keys.keys Keys/1.0",
            "keys.keys Keys/2.1",
            "keys.keys Kees/1.1",
            "kees Keys/1.1",
            "keys.keys",
            "",
        ] {
            assert_eq!(check(&|report| report.provides[0] = offered.to_owned()), missing, "{offered:?}");
        }
        // Of an older build, whose answer did not say more.
        let old = |report: &mut ReadyReport| (report.name, report.endpoint) = (String::new(), String::new());
        assert_eq!(check(&old), Ok(()));
    }
}
