//! Names of container images are given and taken away by acts: decided, on record, and only then done.

use std::{io, sync::Arc};

use base::{AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, Sequence, TreeId};
use chain::payload::{
    Body, Envelope, Payload, Receipt, ReceiptStatus,
    image::{ImageImport, ImageRemove},
    policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType},
};
use kit::{
    ClosedImage, Requestor,
    authority::{Entry, random_16},
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{images::Piece, manager::Manager, trees::Claim};
use crate::{
    core::{
        Named, ProcessError, Tree, image_name,
        limits::{TREE_NAME_BYTES_MAX, TREES_MAX},
    },
    unpack::{Report, Task},
};

/// No entry.
const NOWHERE: AxiomRef = AxiomRef { sequence: Sequence(0), hash: Hash::ZERO };

/// What is to become of a name.
#[derive(Clone, Copy, Debug)]
enum Change {
    Import,
    Remove,
}

/// An image under one of its names.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) named: Named,
    /// Nothing if the image is not there any more.
    pub(super) tree: Option<Arc<Tree>>,
}

impl Manager {
    /// What policy is asked, and from whom the name is taken. An own name and another's are two kinds of act.
    fn image_question(
        &self,
        name: &str,
        change: Change,
        requestor: &Requestor,
    ) -> Result<(PolicyRequest, Option<IdentityId>), Status> {
        let taken_from = self.state().images.other_owner(name, requestor.id());
        let owned = name.to_owned();
        let action = match (taken_from, change) {
            (Some(_), _) => PolicyAction::TakeImage { name: owned },
            (None, Change::Import) => PolicyAction::ImportImage { name: owned },
            (None, Change::Remove) => PolicyAction::RemoveImage { name: owned },
        };
        let resource = ResourceRef { resource_type: ResourceType::Image, id: name.to_owned() };
        let mut request = requestor.ask(&self.node, action, resource)?;
        if let Some(owner) = taken_from {
            request.context.metadata.insert("owner".to_owned(), owner.to_string());
        }
        Ok((request, taken_from))
    }

    /// Unpacks what comes, and gives it its name once that is on record. Of what is refused nothing stays.
    pub(super) async fn import_tree(
        self: &Arc<Self>,
        tag: String,
        name: String,
        pieces: mpsc::Receiver<Piece>,
        requestor: Requestor,
    ) -> Result<Shown, Status> {
        self.ready().await?;
        image_name(&name).map_err(|text| ProcessError::invalid("name", text))?;
        if tag.len() > TREE_NAME_BYTES_MAX {
            let text = format!("{} bytes; a tag has at most {TREE_NAME_BYTES_MAX}", tag.len());
            return Err(ProcessError::invalid("tag", text).into());
        }
        let _turn =
            Arc::clone(&self.trees.imports).try_acquire_owned().map_err(|_| ProcessError::ImportsBusy)?;
        self.room_for(&name)?;
        // Whoever may not have the name learns it before anything is unpacked.
        let (request, _) = self.image_question(&name, Change::Import, &requestor)?;
        match self.node.authority().preflight(&request).await {
            Err(_) if kit::is_broken("image-record") => {}
            answer => drop(answer?),
        }
        let staged = self.trees.stage(random_16()?);
        let staged = staged.map_err(|error| doing("making room for an image", error))?;
        let imported = match self.unpack(&staged, Task::Unpack(tag), Some(pieces)).await {
            Ok(Report::Unpacked(id, content)) => {
                let tree = Tree { id, content: *content };
                match tree.check() {
                    Ok(()) => self.name_tree(name, &staged, tree, &requestor).await,
                    Err(text) => Err(ProcessError::invalid("root", text).into()),
                }
            }
            Ok(Report::Failed(text)) => Err(ProcessError::TreeRefused(text).into()),
            Ok(Report::Removed) => Err(ProcessError::Internal("it did something else".to_owned()).into()),
            Err(error) => Err(error.into()),
        };
        if self.trees.path(&staged).exists() {
            self.trees.leave(staged);
        }
        self.remove_left_trees();
        imported
    }

    fn room_for(&self, name: &str) -> Result<(), ProcessError> {
        let images = &self.state().images;
        match images.len() >= TREES_MAX && images.get(name).is_none() {
            true => Err(ProcessError::TreesFull),
            false => Ok(()),
        }
    }

    async fn name_tree(
        self: &Arc<Self>,
        name: String,
        staged: &str,
        tree: Tree,
        requestor: &Requestor,
    ) -> Result<Shown, Status> {
        let _naming = self.trees.naming.lock().await;
        self.room_for(&name)?;
        // Its owner may be another since the unpacking began.
        let (request, taken_from) = self.image_question(&name, Change::Import, requestor)?;
        let id = tree.id;
        // In its place before the entry: what the log has a name for is there.
        let tree = self.trees.place(staged, tree).map_err(|error| doing("keeping an image", error))?;
        let import = ImageImport {
            name: name.clone(),
            tree: id,
            form: tree.content.form,
            manifest: tree.content.manifest,
            size_bytes: tree.content.size_bytes,
            entries: tree.content.entries,
            by: requestor.id(),
            taken_from,
        };
        let named = match self.act_on_image(&request, import.clone()).await {
            Ok(at) => {
                self.close_image_act(at, true);
                self.folded_image(&name, at)
            }
            Err(_) if kit::is_broken("image-record") => {
                self.imagine(&import);
                self.folded_image(&name, NOWHERE)
            }
            Err(status) => Err(status),
        };
        if named.is_err() && !self.state().images.is_named(id) {
            self.trees.forget(id).map_err(|error| doing("removing what was refused", error))?;
        }
        Ok(Shown { name, named: named?, tree: Some(tree) })
    }

    /// As if it were on record: what `prove` must notice.
    fn imagine(&self, import: &ImageImport) {
        let (submitter, key) = (self.node.identity(), EntryKey([0; EntryKey::BYTES]));
        let envelope = Envelope { submitter, key, authorization: None, body: import.clone() };
        self.state().images.apply(NOWHERE, AxiomTime::ZERO, &Payload::ImageImport(Box::new(envelope)));
    }

    /// Takes a name away, and with the last one the image.
    pub(super) async fn remove_tree(
        self: &Arc<Self>,
        id: TreeId,
        name: &str,
        requestor: Requestor,
    ) -> Result<AxiomRef, Status> {
        self.ready().await?;
        let naming = self.trees.naming.lock().await;
        let name = self.name_to_remove(id, name, &requestor)?;
        let names = self.state().images.all().filter(|(_, named)| named.tree == id).count();
        // With its last name it goes.
        let _closed = if names == 1 { Some(self.close_tree(id).await?) } else { None };
        let (request, taken_from) = self.image_question(&name, Change::Remove, &requestor)?;
        let remove = ImageRemove { name, tree: id, by: requestor.id(), taken_from };
        let at = self.act_on_image(&request, remove).await?;
        let goes = !self.state().images.is_named(id) && self.trees.get(id).is_some();
        let gone = if goes { self.trees.forget(id) } else { Ok(()) };
        self.close_image_act(at, gone.is_ok());
        drop(naming);
        gone.map_err(|error| doing("removing an image", error))?;
        self.remove_left().await;
        Ok(at)
    }

    fn name_to_remove(&self, id: TreeId, name: &str, requestor: &Requestor) -> Result<String, ProcessError> {
        let state = self.state();
        let names = state.images.all().filter(|(_, named)| named.tree == id).map(|(name, _)| name.as_str());
        let names: Vec<&str> = names.collect();
        if name.is_empty() && names.len() > 1 {
            let text = format!("image {id} has the names {}; say which one is to go", names.join(", "));
            return Err(ProcessError::invalid("name", text));
        }
        let meant = state.images.meant(id, name, requestor.id());
        meant.map(|(name, _)| name).ok_or_else(|| ProcessError::no_name(id, name))
    }

    /// No program and no service is in it, and from here on none comes.
    async fn close_tree(&self, id: TreeId) -> Result<(Claim, ClosedImage), Status> {
        let closed = self.trees.close(id)?;
        if let Some(pid) = self.state().runs_in(id) {
            return Err(ProcessError::TreeInUse { tree: id, pid }.into());
        }
        // Of services the supervisor knows; if it does not answer, the image stays.
        let asked = kit::close_image(&self.node, id).await;
        let asked = asked.map_err(|error| {
            ProcessError::Internal(format!("asking the supervisor who uses the image: {error}"))
        })?;
        if !asked.services.is_empty() {
            return Err(ProcessError::TreeServes { tree: id, services: asked.services.join(", ") }.into());
        }
        Ok((closed, asked))
    }

    /// By name.
    pub(super) fn shown_images(&self) -> Vec<Shown> {
        let state = self.state();
        let all = state.images.all().map(|(name, named)| Shown {
            name: name.clone(),
            named: named.clone(),
            tree: self.trees.get(named.tree),
        });
        all.collect()
    }

    /// On record, and folded here: who holds the lock on names sees what the log says.
    async fn act_on_image<T: Body>(&self, request: &PolicyRequest, body: T) -> Result<AxiomRef, Status> {
        let entry = Entry::for_request(self.node.identity(), request, body)?;
        let committed = self.node.authority().act(request, entry).await?;
        let at = committed.entry.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()))?;
        while self.node.feed().wait_for(at.sequence).await.is_err() {}
        Ok(at)
    }

    fn folded_image(&self, name: &str, at: AxiomRef) -> Result<Named, Status> {
        let state = self.state();
        let named = state.images.get(name).filter(|named| named.at == at).cloned();
        let text = || format!("entry {} gave nobody the name {name:?}: another was first", at.sequence);
        named.ok_or_else(|| ProcessError::Internal(text()).into())
    }

    fn close_image_act(self: &Arc<Self>, at: AxiomRef, done: bool) {
        let manager = Arc::clone(self);
        let hash = Hash::of_parts(&[b"bailiwick image receipt v1\0", &at.hash.0]);
        let mut key = [0; EntryKey::BYTES];
        key.iter_mut().zip(hash.0).for_each(|(to, from)| *to = from);
        let receipt = Receipt::closing(at, ReceiptStatus::of(done));
        tokio::spawn(async move { manager.record(EntryKey(key), receipt).await });
    }
}

fn doing(what: &str, error: io::Error) -> ProcessError {
    ProcessError::Internal(format!("{what}: {error}"))
}
