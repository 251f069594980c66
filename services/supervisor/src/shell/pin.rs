//! The container image of a manifest, fixed when the manifest is applied: what is kept, and what every later start runs, names
//! its id beside the name, whatever the name comes to mean.

use std::{collections::BTreeSet, ops::Range, path::Path, time::Duration};

use base::{IdentityId, TreeId};
use chain::payload::policy::{PolicyAction, ResourceRef, ResourceType};
use kit::{authority::AuthorityError, images::Reference};
use serde::Deserialize;
use toml::Spanned;

use super::{
    apply::{Applier, read_folder},
    image_holds::{Closed, Held},
};
use crate::{core::supervisor::SupervisorError, manifest::ProgramImage};

/// How long an image that was imported a moment ago may take to be known here.
const IMPORT_WAIT: Duration = Duration::from_millis(1_000);
const IMPORT_PAUSE: Duration = Duration::from_millis(50);
/// How long the log may take to be read after the node has booted.
const LOG_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A name that goes elsewhere between the question and its answer is asked for again so many times.
const TRIES_MAX: usize = 4;

/// Where the image stands in a text of any manifest.
#[derive(Deserialize)]
struct Outline {
    program: Option<Program>,
}

#[derive(Deserialize)]
struct Program {
    image: Spanned<String>,
}

/// A container image, and the place of its name in the text.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    reference: Reference,
    span: Range<usize>,
}

/// None for a manifest without one, and for a text that is no manifest: whoever reads it says so.
fn place(text: &str) -> Option<Place> {
    let image = toml::from_str::<Outline>(text).ok()?.program?.image;
    let reference = ProgramImage::parse(image.get_ref()).ok()?.container()?;
    Some(Place { reference, span: image.span() })
}

/// The same text with this image in the place of what it names; as it was if it says the same.
fn with_image(text: &str, place: &Place, pinned: &Reference) -> Option<String> {
    if place.reference.digest == pinned.digest {
        return Some(text.to_owned());
    }
    // A name may hold what TOML escapes.
    let quoted = toml::Value::String(pinned.to_string()).to_string();
    Some(format!("{}{quoted}{}", text.get(..place.span.start)?, text.get(place.span.end..)?))
}

impl Applier {
    /// The text that is applied, kept and compared: with the id of its container image, if it names one, and that image held.
    /// `by` is who asks, and whom policy decides about; none is the boot, which finds what was fixed before and decides nothing.
    pub(super) async fn pinned(
        &self,
        by: Option<IdentityId>,
        service: &str,
        text: &str,
    ) -> Result<(String, Option<Held>), SupervisorError> {
        let Some(place) = place(text) else { return Ok((text.to_owned(), None)) };
        let Some(by) = by else {
            return match place.reference.digest {
                Some(tree) => Ok((text.to_owned(), Some(self.image_holds.hold(tree, service)?))),
                None => Err(SupervisorError::InvalidManifest(format!(
                    "its image {} has no id, so nobody has said what is to run: `bailiwick service apply FILE` fixes it",
                    place.reference
                ))),
            };
        };
        for _ in 0..TRIES_MAX {
            let (name, tree) = self.known_image(&place.reference, by).await?;
            // From here on no removal begins; one that is on record already is seen below.
            let held = self.image_holds.hold(tree, service)?;
            self.decide_use(by, &name, tree).await?;
            // The decision is on record after every change of the name that was answered before it.
            if self.known_image(&place.reference, by).await?.1 == tree {
                return Ok((self.fixed(text, &place, tree)?, Some(held)));
            }
        }
        Err(SupervisorError::Unavailable(format!("the name {} goes from image to image", place.reference)))
    }

    /// The same for who only wants to know.
    pub(super) async fn would_be_pinned(&self, text: &str) -> Result<String, SupervisorError> {
        let Some(place) = place(text) else { return Ok(text.to_owned()) };
        let (_, tree) = self.known_image(&place.reference, self.knowledge.admin).await?;
        self.fixed(text, &place, tree)
    }

    fn fixed(&self, text: &str, place: &Place, tree: TreeId) -> Result<String, SupervisorError> {
        let pinned = Reference { name: place.reference.name.clone(), digest: Some(tree) };
        let unplaced = || SupervisorError::InvalidManifest("its image has no place in the text".to_owned());
        with_image(text, place, &pinned).ok_or_else(unplaced)
    }

    /// By which name, and which one it is.
    async fn known_image(
        &self,
        reference: &Reference,
        by: IdentityId,
    ) -> Result<(String, TreeId), SupervisorError> {
        let feed = self.knowledge.feed();
        tokio::select! {
            () = feed.caught_up() => {}
            _ = feed.stopped() => {
                return Err(SupervisorError::Unavailable(self.knowledge.trouble().unwrap_or_default()));
            }
            () = tokio::time::sleep(LOG_READ_TIMEOUT) => {
                return Err(SupervisorError::Unavailable("the log has not been read yet".to_owned()));
            }
        }
        let known = async {
            loop {
                if let Some(found) = self.knowledge.image(reference, by) {
                    return found;
                }
                tokio::time::sleep(IMPORT_PAUSE).await;
            }
        };
        tokio::time::timeout(IMPORT_WAIT, known).await.map_err(|_| {
            SupervisorError::InvalidManifest(format!(
                "there is no container image {reference} on this node: `bailiwick image list` shows those that are there, \
                 `bailiwick image pull {name}` or `bailiwick image import FILE --name {name}` brings one in; a program of the host \
                 is named by its absolute path",
                name = if reference.name.is_empty() { "NAME" } else { &reference.name }
            ))
        })
    }

    /// As for a program in an image (decision 0022): rules see its name and its id.
    async fn decide_use(&self, by: IdentityId, name: &str, tree: TreeId) -> Result<(), SupervisorError> {
        let unavailable = |error: AuthorityError| SupervisorError::Unavailable(error.to_string());
        let action = PolicyAction::UseImage { name: name.to_owned(), tree };
        let resource = ResourceRef { resource_type: ResourceType::Image, id: format!("{name}@{tree}") };
        let request = self.authority.request(by, action, resource).map_err(unavailable)?;
        match self.authority.evaluate(&request).await {
            Ok(committed) => {
                if let Some(at) = committed.decision {
                    self.wait_for_fold(at.sequence).await;
                }
                Ok(())
            }
            Err(AuthorityError::Denied { decision, .. }) => {
                Err(SupervisorError::PolicyDenied { refusal: decision.sequence.0 })
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Closes an image that nobody uses: from here on no service is taken in that would run in it.
    pub(super) async fn close_image(
        &self,
        tree: TreeId,
    ) -> Result<(Vec<String>, Option<Closed>), SupervisorError> {
        let closed = match self.image_holds.close(tree) {
            Ok(closed) => closed,
            Err(services) => return Ok((services, None)),
        };
        // In this order: what was taken in before it was closed is registered by now.
        let services = self.image_users(tree).await?;
        Ok(if services.is_empty() { (services, Some(closed)) } else { (services, None) })
    }

    /// Services that run in this image, are about to, would go back to it, or whose manifest the next boot finds: of those this
    /// boot may not have come to all yet.
    pub(super) async fn image_users(&self, tree: TreeId) -> Result<Vec<String>, SupervisorError> {
        let folder = self.house.layout.manifests();
        let found = tokio::task::spawn_blocking(move || found_users(&folder, tree)).await;
        let mut users = found.map_err(|error| SupervisorError::Unavailable(error.to_string()))?;
        users.extend(self.registered_users(tree).await?);
        Ok(users.into_iter().collect())
    }

    async fn registered_users(&self, tree: TreeId) -> Result<BTreeSet<String>, SupervisorError> {
        self.inbox
            .view(move |machine| {
                let uses = |image: &str| {
                    let reference = ProgramImage::parse(image).ok().and_then(ProgramImage::container);
                    reference.is_some_and(|reference| reference.digest == Some(tree))
                };
                let users = machine.all_setups().filter(|setup| {
                    setup.manifest.manifest.program.as_ref().is_some_and(|program| uses(&program.image))
                });
                users.map(|setup| setup.name().to_owned()).collect()
            })
            .await
    }
}

/// Each manifest is kept under its service's name.
fn found_users(folder: &Path, tree: TreeId) -> BTreeSet<String> {
    let uses = |text: &str| place(text).is_some_and(|place| place.reference.digest == Some(tree));
    let found = read_folder(folder).into_iter().filter(|(_, text)| uses(text));
    let name = |file: &str| Some(Path::new(file).file_stem()?.to_string_lossy().into_owned());
    found.filter_map(|(file, _)| name(&file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: TreeId = TreeId([0xab; 32]);

    fn pinned(text: &str) -> Option<String> {
        let place = place(text)?;
        with_image(text, &place, &Reference { name: place.reference.name.clone(), digest: Some(TREE) })
    }

    #[test]
    fn an_id_is_put_behind_the_name_and_nothing_else_changes() {
        let text = "# image = \"x\"\nversion = 1\n[program]\nimage = 'web:1'   # ours\nargs = [\"image = 'web:1'\"]\n";
        let expected = text.replacen("'web:1'   # ours", &format!("\"web:1@{TREE}\"   # ours"), 1);
        assert_eq!(pinned(text), Some(expected.clone()));
        assert_eq!(pinned(&expected), Some(expected.clone()), "what is fixed stays");
        let inline = "program = { args = [], image = \"web\" }\n";
        assert_eq!(pinned(inline), Some(format!("program = {{ args = [], image = \"web@{TREE}\" }}\n")));
        let other = expected.replace("ab", "cd");
        assert_eq!(pinned(&other), Some(expected));
        let odd = "program = { image = \"a\\\\b\\\"c\" }\n";
        let kept: Outline = toml::from_str(&pinned(odd).unwrap()).unwrap();
        assert_eq!(kept.program.unwrap().image.into_inner(), format!("a\\b\"c@{TREE}"));
    }

    #[test]
    fn what_the_next_boot_would_run_uses_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("web.toml", &format!("[program]\nimage = \"web@{TREE}\"\n"));
        write("api.toml", &format!("[program]\nimage = \"{TREE}\"\n"));
        write("other.toml", &format!("[program]\nimage = \"web@{}\"\n", TreeId([1; 32])));
        write("unfixed.toml", "[program]\nimage = \"web\"\n");
        write("broken.toml", "[program");
        write("web.toml.old", &format!("[program]\nimage = \"web@{TREE}\"\n"));
        let users: Vec<String> = found_users(folder.path(), TREE).into_iter().collect();
        assert_eq!(users, ["api", "web"]);
    }

    #[test]
    fn what_is_no_container_image_has_no_place() {
        for text in
            ["[program]\nimage = \"/bin/x\"\n", "version = 1\n", "[program\n", "[program]\nimage = 3\n"]
        {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
