//! Which files make a unit: the unit, its template if it is an instance, its drop-ins in systemd's order.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use import::{
    Named,
    limits::{FILE_BYTES_MAX, FILES_MAX},
};

use crate::{
    command::checkpoint::read_text,
    exit::{Failure, USAGE},
};

/// Where systemd looks for units, the first wins.
const FOLDERS: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/lib/systemd/system.control",
];

pub fn all(named: &[&PathBuf]) -> Result<Vec<Named>> {
    if named.len() > FILES_MAX {
        let what = format!("{} files are too many for one import; at most {FILES_MAX} are read", named.len());
        return Err(Failure::new(USAGE, what).into());
    }
    let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    named.iter().map(|one| unit(one, &folders)).collect()
}

fn unusable(what: String) -> anyhow::Error {
    Failure::new(USAGE, what).into()
}

fn unit(path: &Path, folders: &[PathBuf]) -> Result<Named> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(unusable(format!("{} is no name of a unit", path.display())));
    };
    let template = template_of(name);
    if template.as_deref() == Some(name) {
        return Err(unusable(format!(
            "{} is a template; name an instance of it, such as {}",
            path.display(),
            name.replace("@.", "@NAME.")
        )));
    }
    // A bare name is looked for where systemd looks.
    let bare = path.components().count() == 1 && !path.exists();
    let own = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let searched: Vec<PathBuf> = if bare { folders.to_vec() } else { vec![own.to_owned()] };
    let names = [Some(name.to_owned()), template.clone()];
    let places = names.iter().flatten().flat_map(|name| searched.iter().map(move |folder| folder.join(name)));
    let Some(file) = places.into_iter().find(|place| place.exists()) else {
        let searched: Vec<String> = searched.iter().map(|folder| folder.display().to_string()).collect();
        return Err(unusable(format!("there is no {name} in {}", searched.join(", "))));
    };
    if std::fs::canonicalize(&file).is_ok_and(|real| real == Path::new("/dev/null")) {
        return Err(unusable(format!("{} is masked: it points to /dev/null", file.display())));
    }
    let mut files = vec![text(&file)?];
    // Drop-ins of a unit of the host lie in any of its folders.
    let of_host = folders.iter().any(|folder| file.parent() == Some(folder));
    let beside = file.parent().map(Path::to_owned).unwrap_or_default();
    let within = if of_host { folders.to_vec() } else { vec![beside] };
    for drop_in in drop_ins(name, template.as_deref(), &within)? {
        files.push(text(&drop_in)?);
    }
    Ok(Named { name: name.to_owned(), files })
}

/// Name and text of a file of bounded size.
pub fn text(file: &Path) -> Result<(String, String)> {
    let found = std::fs::metadata(file).with_context(|| format!("reading {}", file.display()))?;
    if !found.is_file() {
        return Err(unusable(format!("{} is no file", file.display())));
    }
    Ok((
        file.display().to_string(),
        read_text(file, FILE_BYTES_MAX).map_err(|error| unusable(format!("{error:#}")))?,
    ))
}

/// `x@.service` of `x@one.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (_, kind) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@.{kind}"))
}

/// Folders of drop-ins, the most general first: `service.d`, `a-.service.d` of `a-b.service`, the template's, its own.
fn folders_of(name: &str, template: Option<&str>) -> Vec<String> {
    let Some((stem, kind)) = name.rsplit_once('.') else { return Vec::new() };
    let prefix = stem.split('@').next().unwrap_or(stem);
    let mut folders = vec![format!("{kind}.d")];
    folders.extend(
        prefix.match_indices('-').filter_map(|(at, _)| Some(format!("{}.{kind}.d", prefix.get(..=at)?))),
    );
    folders.extend(template.map(|template| format!("{template}.d")));
    folders.push(format!("{name}.d"));
    folders
}

/// By file name; of two with one name the one of the more special folder, or of the earlier place, counts.
fn drop_ins(name: &str, template: Option<&str>, within: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in folders_of(name, template) {
        for place in within.iter().rev() {
            let place = place.join(&folder);
            let listing = match std::fs::read_dir(&place) {
                Ok(listing) => listing,
                Err(_) => continue,
            };
            for entry in listing {
                let path = entry.with_context(|| format!("reading {}", place.display()))?.path();
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                if name.ends_with(".conf") && !name.starts_with('.') {
                    found.insert(name.to_owned(), path.clone());
                }
                if found.len() > FILES_MAX {
                    return Err(unusable(format!(
                        "{}: at most {FILES_MAX} drop-ins are read",
                        place.display()
                    )));
                }
            }
        }
    }
    // One that points to /dev/null takes away those of its name.
    let masked = |path: &Path| std::fs::canonicalize(path).is_ok_and(|real| real == Path::new("/dev/null"));
    Ok(found.into_values().filter(|path| !masked(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn found(root: &Path, name: &str, folders: &[&str]) -> Result<Vec<String>> {
        let folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
        let path = if folders.is_empty() { root.join(name) } else { PathBuf::from(name) };
        Ok(unit(&path, &folders)?.files.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn a_unit_comes_with_its_drop_ins_by_file_name() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("a-b.service", "unit"),
            ("a-b.service.d/20.conf", "own"),
            ("a-.service.d/10.conf", "prefix"),
            ("a-.service.d/20.conf", "hidden by the more special"),
            ("service.d/30.conf", "all"),
            ("a-b.service.d/no.txt", "no drop-in"),
        ];
        write(root.path(), &files);
        assert_eq!(found(root.path(), "a-b.service", &[]).unwrap(), ["unit", "prefix", "own", "all"]);
    }

    #[test]
    fn an_instance_is_read_from_its_template() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("x@.service", "template"),
            ("x@.service.d/1.conf", "of all"),
            ("x@one.service.d/2.conf", "of one"),
            ("x@two.service", "its own"),
        ];
        write(root.path(), &files);
        assert_eq!(found(root.path(), "x@one.service", &[]).unwrap(), ["template", "of all", "of one"]);
        assert_eq!(found(root.path(), "x@two.service", &[]).unwrap(), ["its own", "of all"]);
        let error = found(root.path(), "x@.service", &[]).unwrap_err().to_string();
        assert!(error.contains("is a template"), "{error}");
    }

    #[test]
    fn a_name_is_looked_for_where_systemd_looks() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("etc/x.service", "of the admin"),
            ("lib/x.service", "of the package"),
            ("etc/x.service.d/1.conf", "of the admin too"),
            ("lib/x.service.d/1.conf", "hidden"),
            ("lib/x.service.d/2.conf", "more"),
        ];
        write(root.path(), &files);
        let all = found(root.path(), "x.service", &["etc", "lib"]).unwrap();
        assert_eq!(all, ["of the admin", "of the admin too", "more"]);
        let error = found(root.path(), "y.service", &["etc", "lib"]).unwrap_err().to_string();
        assert!(error.contains("there is no y.service"), "{error}");
    }

    #[test]
    fn what_is_masked_is_refused_and_a_masked_drop_in_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("x.service", "unit"), ("x.service.d/1.conf", "one")]);
        std::os::unix::fs::symlink("/dev/null", root.path().join("x.service.d/2.conf")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("y.service")).unwrap();
        assert_eq!(found(root.path(), "x.service", &[]).unwrap(), ["unit", "one"]);
        assert!(found(root.path(), "y.service", &[]).unwrap_err().to_string().contains("masked"));
    }
}
