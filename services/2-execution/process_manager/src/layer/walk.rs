//! Goes through a layer beside the folder below it and finds what differs. Nothing is followed: each name is opened in
//! the folder that it stands in, and a link is a link.

use std::{collections::BTreeSet, io, os::fd::OwnedFd};

use rustix::fs::Stat;

use super::{Blocked, Change, Kind, OnChange, What, entry, unfinished};

/// Folders below each other; two descriptors are open for each.
pub(super) const DEPTH_MAX: usize = 128;

/// A path below a folder that alone is looked at.
pub(super) struct Filter(Vec<Vec<u8>>);

impl Filter {
    pub(super) fn new(under: &str) -> Self {
        let parts = under.split('/').filter(|part| !part.is_empty() && *part != ".");
        Self(parts.map(|part| part.as_bytes().to_vec()).collect())
    }

    /// Whether a name at this depth lies on the path or below it.
    fn passes(&self, depth: usize, name: &[u8]) -> bool {
        self.0.get(depth).is_none_or(|part| part == name)
    }

    /// Whether it is the end of the path or below it: what lies above is looked at only as far as it is needed.
    fn means(&self, depth: usize) -> bool {
        depth + 1 >= self.0.len()
    }
}

pub(super) struct Walk<'a> {
    pub(super) shown: &'a str,
    pub(super) made_at: (i64, u32),
    /// A commit has changed times of folders below.
    pub(super) begun: bool,
    pub(super) mark: u64,
    pub(super) filter: Filter,
}

/// One name that differs, where it stands.
pub(super) struct Visit<'a> {
    pub(super) upper: &'a OwnedFd,
    /// None where a folder above it is not there yet; a commit makes it first.
    pub(super) base: Option<&'a OwnedFd>,
    pub(super) name: &'a [u8],
    /// None: removed.
    pub(super) above: Option<Stat>,
    pub(super) below: Option<Stat>,
    /// Below the folder, for a second name of the same file.
    pub(super) path: Vec<u8>,
    shown: String,
    blocked: Option<Blocked>,
}

impl Visit<'_> {
    pub(super) fn change(&self) -> Change {
        let what = match (&self.above, &self.below) {
            (None, _) => What::Removed,
            (Some(_), None) => What::Added,
            (Some(_), Some(_)) => What::Changed,
        };
        let shown = self.above.as_ref().or(self.below.as_ref());
        let kind = shown.map_or(Kind::File, entry::kind);
        let size = shown.filter(|_| kind == Kind::File).map_or(0, |stat| stat.st_size);
        Change {
            path: format!("{}/{}", self.shown.trim_end_matches('/'), String::from_utf8_lossy(&self.path)),
            what,
            kind,
            size_bytes: u64::try_from(size).unwrap_or(0),
            blocked: self.blocked,
        }
    }
}

/// Where the walk stands.
struct Place<'a> {
    upper: &'a OwnedFd,
    base: Option<&'a OwnedFd>,
    /// What the folder below has here is not seen by the program.
    opaque: bool,
    depth: usize,
    path: &'a [u8],
}

impl Walk<'_> {
    pub(super) fn folder(
        &self,
        upper: &OwnedFd,
        base: Option<&OwnedFd>,
        on_change: &mut OnChange<'_>,
    ) -> io::Result<()> {
        self.place(&Place { upper, base, opaque: false, depth: 0, path: b"" }, on_change)
    }

    fn place(&self, place: &Place<'_>, on_change: &mut OnChange<'_>) -> io::Result<()> {
        let mut seen = BTreeSet::new();
        for name in entry::names(place.upper)? {
            if place.opaque {
                seen.insert(name.clone());
            }
            if self.filter.passes(place.depth, &name) {
                self.name(place, &name, on_change).map_err(|error| self.at(place, &name, error))?;
            }
        }
        let hides = place.opaque && self.filter.means(place.depth);
        let Some(base) = place.base.filter(|_| hides) else { return Ok(()) };
        for name in entry::names(base)? {
            let unfinished = unfinished(self.mark).iter().any(|reserved| reserved.as_bytes() == name);
            if seen.contains(&name) || unfinished || !self.filter.passes(place.depth, &name) {
                continue;
            }
            if let Some(below) = entry::look(base, &name)? {
                self.visit(place, &name, None, Some(below), on_change)
                    .map_err(|error| self.at(place, &name, error))?;
            }
        }
        Ok(())
    }

    /// Says where an error happened, once.
    fn at(&self, place: &Place<'_>, name: &[u8], error: io::Error) -> io::Error {
        if error.raw_os_error().is_none() {
            return error;
        }
        let path = path_of(place, name);
        io::Error::other(format!(
            "{}/{}: {error}",
            self.shown.trim_end_matches('/'),
            String::from_utf8_lossy(&path)
        ))
    }

    fn name(&self, place: &Place<'_>, name: &[u8], on_change: &mut OnChange<'_>) -> io::Result<()> {
        let Some(above) = entry::look(place.upper, name)? else { return Ok(()) };
        let below = place.base.map_or(Ok(None), |base| entry::look(base, name))?;
        // Above the path that is meant, folders alone are of interest.
        if entry::kind(&above) != Kind::Folder && !self.filter.means(place.depth) {
            return Ok(());
        }
        if entry::is_whiteout(place.upper, name, &above)? {
            return match below {
                Some(_) => self.visit(place, name, None, below, on_change),
                None => Ok(()),
            };
        }
        match entry::kind(&above) {
            // Without the process that listened it means nothing.
            Kind::Socket => return Ok(()),
            Kind::Folder => {}
            _ => {
                let is_same = match (place.base, &below) {
                    (Some(base), Some(below)) => entry::same((place.upper, &above), (base, below), name)?,
                    _ => false,
                };
                if is_same {
                    return Ok(());
                }
                return self.visit(place, name, Some(above), below, on_change);
            }
        }
        let was_folder = below.as_ref().is_some_and(|below| entry::kind(below) == Kind::Folder);
        let differs = below
            .as_ref()
            .is_none_or(|below| !was_folder || entry::permissions(&above) != entry::permissions(below));
        if differs && (self.filter.means(place.depth) || !was_folder) {
            self.visit(place, name, Some(above), below, on_change)?;
        }
        if place.depth + 1 >= DEPTH_MAX {
            // What is in it is not looked at; if there is anything, it is said.
            let inside = entry::open_folder(place.upper, name)?;
            if entry::names(&inside)?.is_empty() {
                return Ok(());
            }
            let blocked = Some(Blocked::TooDeep);
            return on_change(&mut self.found(place, name, Some(above), below, blocked));
        }
        let upper = entry::open_folder(place.upper, name)?;
        // Looked at again: the visit may have made it.
        let is_folder = |base: &OwnedFd| {
            let now = entry::look(base, name)?;
            Ok::<bool, io::Error>(now.is_some_and(|now| entry::kind(&now) == Kind::Folder))
        };
        let base = match place.base {
            Some(base) if is_folder(base)? => Some(entry::open_folder(base, name)?),
            _ => None,
        };
        let opaque = place.opaque || entry::is_opaque(&upper)?;
        let path = path_of(place, name);
        let inner = Place { upper: &upper, base: base.as_ref(), opaque, depth: place.depth + 1, path: &path };
        self.place(&inner, on_change)
    }

    fn visit(
        &self,
        place: &Place<'_>,
        name: &[u8],
        above: Option<Stat>,
        below: Option<Stat>,
        on_change: &mut OnChange<'_>,
    ) -> io::Result<()> {
        let blocked = self.blocked(place, name, above.as_ref(), below.as_ref())?;
        on_change(&mut self.found(place, name, above, below, blocked))
    }

    fn found<'p>(
        &self,
        place: &'p Place<'p>,
        name: &'p [u8],
        above: Option<Stat>,
        below: Option<Stat>,
        blocked: Option<Blocked>,
    ) -> Visit<'p> {
        Visit {
            upper: place.upper,
            base: place.base,
            name,
            above,
            below,
            path: path_of(place, name),
            shown: self.shown.to_owned(),
            blocked,
        }
    }

    fn blocked(
        &self,
        place: &Place<'_>,
        name: &[u8],
        above: Option<&Stat>,
        below: Option<&Stat>,
    ) -> io::Result<Option<Blocked>> {
        if unfinished(self.mark).iter().any(|reserved| reserved.as_bytes() == name) {
            return Ok(Some(Blocked::Reserved));
        }
        if let Some(above) = above {
            let kind = entry::kind(above);
            if kind == Kind::Device {
                return Ok(Some(Blocked::Device));
            }
            let had = below.is_some_and(|below| entry::permissions(below) == entry::permissions(above));
            if entry::sets_id(above) && !had {
                return Ok(Some(Blocked::SetId));
            }
            if matches!(kind, Kind::File | Kind::Folder) {
                let file = entry::open(place.upper, name)?;
                if entry::has_unknown_mark(&file)? {
                    return Ok(Some(Blocked::Mark));
                }
                if below.is_none() && self.was_removed(place, &file)? {
                    return Ok(Some(Blocked::Conflict));
                }
            }
        }
        let changed = match (below, place.base) {
            (Some(below), Some(base)) => self.changed_since(base, name, below, 0)?,
            _ => false,
        };
        Ok(changed.then_some(Blocked::Conflict))
    }

    fn is_new(&self, stat: &Stat) -> bool {
        let changed = (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0));
        changed >= self.made_at
    }

    /// A copy of something of which nothing is left below, in a folder where names came or went: it was removed there.
    /// Where none did, the program has moved it here. After a commit has begun, these times are its own.
    fn was_removed(&self, place: &Place<'_>, file: &OwnedFd) -> io::Result<bool> {
        let Some(base) = place.base.filter(|_| !self.begun) else { return Ok(false) };
        Ok(entry::was_copied(file)? && self.is_new(&rustix::fs::fstat(base)?))
    }

    /// Whether it, or anything in it, was changed below after the layer was made.
    fn changed_since(&self, folder: &OwnedFd, name: &[u8], stat: &Stat, depth: usize) -> io::Result<bool> {
        if self.is_new(stat) {
            return Ok(true);
        }
        if entry::kind(stat) != Kind::Folder {
            return Ok(false);
        }
        if depth >= DEPTH_MAX {
            // Not looked at is not known to be unchanged.
            return Ok(true);
        }
        let folder = entry::open_folder(folder, name)?;
        for name in entry::names(&folder)? {
            if let Some(stat) = entry::look(&folder, &name)?
                && self.changed_since(&folder, &name, &stat, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn path_of(place: &Place<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = place.path.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
    path
}
