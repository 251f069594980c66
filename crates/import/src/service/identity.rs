//! As whom the program runs.

use super::Work;
use crate::{
    report::Fate,
    unit::{Setting, value},
};

impl Work<'_> {
    pub(super) fn identity(&mut self) {
        let user = self.named("User");
        let group = self.named("Group");
        let dynamic = self.service("DynamicUser").and_then(|one| {
            let on = self.truth(&one)?;
            if on {
                self.mapped(&one, "the service has an id of its own, which it keeps");
            } else {
                self.ignored(&one, "the unit names its user, or is root");
            }
            Some(on)
        });
        if dynamic == Some(true) {
            for (one, _) in [user, group].into_iter().flatten() {
                self.mapped(&one, "DynamicUser=: the service has an id of its own");
            }
            self.supplementary();
            self.umask();
            return;
        }
        let elevated = self.unit.list("Service", "ExecStart").last().is_some_and(|one| {
            one.value.chars().take_while(|c| "-@:+!".contains(*c)).any(|c| "+!".contains(c))
        });
        let name = user.as_ref().map_or("root", |(_, name)| name.as_str()).to_owned();
        self.as_root = elevated || name == "root" || name == "0";
        let runs_as = if self.as_root { "root" } else { name.as_str() };
        self.manifest.program.user = Some(match &group {
            Some((_, group)) if !elevated => format!("{runs_as}:{group}"),
            _ => runs_as.to_owned(),
        });
        if let Some((one, _)) = &user {
            if elevated && name != "root" {
                self.approximated(
                    one,
                    "the program is started as root and becomes its user itself: `user = \"root\"`",
                );
            } else {
                self.mapped(one, "[program] user");
            }
            self.login(&name);
        }
        if let Some((one, _)) = &group {
            self.mapped(one, "[program] user, after the colon");
        }
        if self.as_root {
            let how = "it runs as root: `user = \"root\"`, with the privileges that its manifest lists and no others, in a sandbox";
            self.whole(Fate::Approximated, how);
        }
        self.supplementary();
        self.umask();
    }

    /// A setting that is a name of the host.
    fn named(&mut self, key: &str) -> Option<(Setting, String)> {
        let one = self.service(key)?;
        let name = self.expanded(&one)?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > 32 || name.starts_with('-') || !name.chars().all(legal) {
            self.refused(&one, "it is no name of a user or a group");
            return None;
        }
        Some((one, name))
    }

    /// What systemd sets for a named user.
    fn login(&mut self, name: &str) {
        let mut variables = vec![("HOME", self.host.home(name))];
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            variables.extend([("LOGNAME", Some(name.to_owned())), ("USER", Some(name.to_owned()))]);
        }
        for (variable, value) in variables {
            if let Some(value) = value {
                self.variables.set(variable, &value, None);
                self.manifest.program.env.push((variable.to_owned(), value));
            }
        }
    }

    fn supplementary(&mut self) {
        for one in self.unit.list("Service", "SupplementaryGroups") {
            let Some(words) = self.words(&one) else { continue };
            if self.manifest.program.user.is_none() {
                self.refused(&one, "groups of the host belong to a user of the host; name one with User= and no DynamicUser=");
                continue;
            }
            if let Some(wrong) =
                words.iter().find(|word| crate::parts::account(word).is_err() || word.contains(':'))
            {
                self.refused(&one, format!("{wrong:?} is no name of a group"));
                continue;
            }
            self.manifest.program.groups.extend(words);
            self.mapped(&one, "[program] groups");
        }
    }

    fn umask(&mut self) {
        let Some(one) = self.service("UMask") else {
            self.manifest.program.umask = Some("0022".to_owned());
            return;
        };
        match value::octal(&one.value).filter(|mask| mask.starts_with('0')) {
            Some(umask) => {
                self.manifest.program.umask = Some(umask);
                self.mapped(&one, "[program] umask");
            }
            None => self.refused(&one, "it is no octal mask"),
        }
    }
}
