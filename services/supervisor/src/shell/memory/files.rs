//! Both files of the memory, as far as the keeper holds them.

use std::{io, os::fd::OwnedFd, sync::Arc};

use super::{Journal, Remembered, UserService};
use crate::{core::supervisor::ServiceSetup, manifest::LoadedManifest};

#[derive(Debug, Default)]
pub(in super::super) struct Files {
    memory: Journal<Remembered>,
    users: Journal<Vec<UserService>>,
    /// The user's services as they stand in their file.
    written: Vec<Arc<LoadedManifest>>,
}

impl Files {
    /// A file for the keeper in place of the one before, if there has to be a new one.
    pub(in super::super) fn write(&mut self, now: Remembered) -> io::Result<Option<OwnedFd>> {
        self.memory.write(now)
    }

    /// The same of the user's services: who they are and what they may, for a supervisor that starts while the log is down.
    /// Looked at again where they are others.
    pub(in super::super) fn write_users<'s, S>(
        &mut self,
        users: impl Fn() -> S,
    ) -> io::Result<Option<OwnedFd>>
    where
        S: Iterator<Item = &'s ServiceSetup>,
    {
        let mut written = self.written.iter();
        let is_written =
            |setup: &ServiceSetup| written.next().is_some_and(|m| Arc::ptr_eq(m, &setup.manifest));
        if users().all(is_written) && users().count() == self.written.len() {
            return Ok(None);
        }
        let mut all: Vec<UserService> = users().map(user).collect();
        all.sort_unstable_by_key(|user| user.identity);
        self.written.clear();
        let file = self.users.write(all)?;
        self.written = users().map(|setup| Arc::clone(&setup.manifest)).collect();
        Ok(file)
    }

    /// The keeper does not hold what it was given: the next of each is whole.
    pub(in super::super) fn not_kept(&mut self) {
        *self = Self::default();
    }
}

fn user(setup: &ServiceSetup) -> UserService {
    UserService {
        file: setup.manifest.file.clone(),
        text: setup.manifest.text.clone(),
        identity: setup.identity,
        capabilities: setup.capabilities.clone(),
    }
}

#[cfg(test)]
mod tests {
    use base::IdentityId;

    use super::super::{read, tests::remembered};
    use super::*;

    fn setup(name: &str, identity: u8) -> ServiceSetup {
        let text = format!(
            "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
             [program]\nimage = \"/bin/true\"\n"
        );
        let manifest = crate::manifest::parse(&format!("{name}.toml"), &text).unwrap();
        ServiceSetup {
            manifest: Arc::new(manifest),
            identity: IdentityId([identity; 32]),
            capabilities: Vec::new(),
        }
    }

    #[test]
    fn what_the_keeper_did_not_take_is_written_anew_though_nothing_has_changed() {
        let setups = [setup("one", 2), setup("two", 1)];
        let mut files = Files::default();
        for _ in 0..2 {
            let memory = files.write(remembered()).unwrap().expect("a whole one");
            assert_eq!(read::<Remembered>(memory).unwrap(), remembered());
            let users = files.write_users(|| setups.iter()).unwrap().expect("a whole one");
            let users: Vec<UserService> = read(users).unwrap();
            let names: Vec<&str> = users.iter().map(|user| user.file.as_str()).collect();
            assert_eq!(names, ["two.toml", "one.toml"], "by identity");
            assert!(files.write(remembered()).unwrap().is_none());
            assert!(files.write_users(|| setups.iter()).unwrap().is_none());
            files.not_kept();
        }
    }

    #[test]
    fn services_of_the_user_are_written_when_one_comes_goes_or_changes() {
        let [one, two, other] = [setup("one", 2), setup("two", 1), setup("two", 1)];
        let mut files = Files::default();
        let held = files.write_users(|| [&one, &two].into_iter()).unwrap().expect("a whole one");
        let read = || read::<Vec<UserService>>(held.try_clone().unwrap()).unwrap().len();
        for (now, expected) in [(vec![&one], 1), (vec![&one, &two], 2), (vec![&one, &other], 2), (vec![], 0)]
        {
            assert!(files.write_users(|| now.iter().copied()).unwrap().is_none(), "in the same file");
            assert_eq!(read(), expected);
        }
    }
}
