//! The first `up`: seed, keys, genesis; in this order, each durable before the next (DESIGN 6).
//!
//! The key boundary runs alone and makes the seed; this process sees the sealed seed and public keys, never the seed. It
//! makes the signing keys, and seals them before it forgets them. Genesis is written last: a node without it is made anew from what is there.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use base::{
    AxiomTime, CAPABILITY_TYPES, CapabilityId, EntryKey, Hash, IdentityId, KeyPath, PublicKey, layout::Layout,
};
use chain::{
    genesis::{self, GenesisPlan},
    payload::{
        Envelope,
        capability::{CapabilityGrant, ObjectType, Permissions, Resource},
        policy::PolicyRule,
        service::Genesis,
    },
};
use durable::{Disk, RealDisk};
use sandbox::Features;
use seal::{KEY_FILE_BYTES, SecretKind, Signer};
use supervisor::{
    manifest,
    sealing::{self, SEAL_KEY_FILE, SEAL_TPM_FILE, SEALED_SEED_FILE, Secret, Secrets},
    signing,
};

use crate::{
    lone_boundary::{self, Given},
    recovery,
};

/// What is asked of a first boot.
pub struct FirstBoot<'a> {
    pub layout: &'a Layout,
    pub node_name: &'a str,
    pub admin_uid: u32,
    /// This program, opened once: what is hashed is what runs.
    pub image: &'a OwnedFd,
    pub image_hash: Hash,
    pub features: &'a Features,
    /// A TPM 2.0 that is to open the seals.
    pub tpm: Option<&'a Path>,
}

impl FirstBoot<'_> {
    /// Makes the node. The caller holds its lock.
    pub fn make(&self) -> Result<()> {
        let state = RealDisk::open(&self.layout.state)?;
        for folder in ["axiom", "policy", "keys", "identity", "node"] {
            state.create_dir(folder)?;
        }
        let secret = self.sealing(&state)?;
        let given = Given {
            secret: Some((secret.kind, secret.in_pipe()?)),
            // The same again, for the copies of the signing keys.
            next: Some((secret.kind, secret.in_pipe()?)),
            ..Given::default()
        };
        let mut boundary = lone_boundary::start(self.image, self.features, given)?;
        let sealed = boundary.create(secret.kind).context("the key boundary could not make a seed")?;
        write(&state, SEALED_SEED_FILE, &sealed)?;
        let mut public_keys = Vec::new();
        for path in genesis::key_paths(self.node_name)? {
            let key =
                boundary.public_key(&path).with_context(|| format!("deriving the public key of {path}"))?;
            public_keys.push((path, key));
        }
        let genesis = self.genesis(&state, &secret, &public_keys)?;
        recovery::copy_keys(&state, &mut boundary, &genesis)?;
        let submitter = IdentityId::of_key(&genesis.node_key);
        let envelope = Envelope { submitter, key: EntryKey([0; 16]), authorization: None, body: genesis };
        let bytes = envelope.to_bytes().context("genesis, with the rules under the configuration folder")?;
        durable::replace(&state, "genesis.cbor", &[&bytes])?;
        Ok(())
    }

    /// What opens the seals; makes the local key if there is neither a TPM nor a credential.
    fn sealing(&self, state: &RealDisk) -> Result<Secret> {
        let secrets = Secrets::of(self.layout);
        let mut key = zeroize::Zeroizing::new([0; KEY_FILE_BYTES]);
        getrandom::fill(&mut *key).context("the kernel's random source")?;
        if let Some(device) = self.tpm {
            // It is opened again from wherever the node is started.
            let device = std::path::absolute(device).context("the path of the TPM")?;
            write(state, SEAL_TPM_FILE, &sealing::seal_by_tpm(&device, &key)?)?;
        } else if secrets.preferred() == SecretKind::KeyFile {
            write(state, SEAL_KEY_FILE, &*key)?;
        }
        Ok(secrets.read(secrets.preferred())?)
    }

    fn genesis(
        &self,
        state: &RealDisk,
        secret: &Secret,
        public_keys: &[(KeyPath, PublicKey)],
    ) -> Result<Genesis> {
        let key_of =
            |path: &KeyPath| public_keys.iter().find(|(known, _)| known == path).map(|(_, key)| *key);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let plan = GenesisPlan {
            image_hash: self.image_hash,
            genesis_time: AxiomTime(u64::try_from(since.as_nanos()).context("the clock stands beyond 2554")?),
            node_name: self.node_name.to_owned(),
            node_key: signing::create(state, Signer::Node, secret)?,
            sequencer_key: signing::create(state, Signer::Sequencer, secret)?,
            policy_key: signing::create(state, Signer::Policy, secret)?,
            identity_key: signing::create(state, Signer::Identity, secret)?,
            admin_uid: self.admin_uid,
            rules: Vec::new(),
            initial_capabilities: Vec::new(),
        };
        let mut genesis = genesis::build(plan, key_of)?;
        genesis.rules = self.rules(genesis.admin)?;
        genesis.initial_capabilities = capabilities(&genesis)?;
        Ok(genesis)
    }

    /// The default rules, then those of the configuration folder in the order of their names.
    fn rules(&self, admin: IdentityId) -> Result<Vec<PolicyRule>> {
        let mut rules = policy::rules::defaults(admin)?;
        let folder = self.layout.rules();
        let Ok(listing) = std::fs::read_dir(&folder) else { return Ok(rules) };
        let mut files =
            listing.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort_unstable();
        for file in files {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            for rule in policy::rules::parse(&file.display().to_string(), &text, admin)? {
                if rules.iter().any(|known| known.id == rule.id) {
                    bail!("{}: there is a rule {} already", file.display(), rule.id);
                }
                rules.push(rule);
            }
        }
        Ok(rules)
    }
}

/// Into the folder of `keys`.
fn write(state: &RealDisk, file: &str, bytes: &[u8]) -> Result<()> {
    let name = format!("{}/{file}", sealing::FOLDER);
    durable::replace(state, &name, &[bytes]).with_context(|| format!("writing {name}"))
}

/// The supervisor holds the right on every service of the catalogue (CAP-38), and what the shipped manifests require is
/// derived from that: one capability for each (service, type).
fn capabilities(genesis: &Genesis) -> Result<Vec<CapabilityGrant>> {
    let root = genesis.identities.first().context("genesis has no root")?.identity_id;
    let find = |name: &str| {
        let name = format!("orbital.services.{name}");
        genesis.identities.iter().find(|identity| identity.name == name).map(|found| found.identity_id)
    };
    let supervisor = find("supervisor").context("genesis has no supervisor")?;
    let mut grants = Vec::new();
    for (_, capability_type) in CAPABILITY_TYPES {
        let permissions =
            Permissions { read: true, write: true, execute: true, delegate: true, revoke: true };
        grants.push(grant(root, supervisor, capability_type, permissions, None)?);
    }
    for (file, text) in manifest::shipped::ALL {
        let parsed = manifest::parse(file, text);
        let manifest = parsed.map_err(|errors| anyhow::anyhow!("{}", texts(&errors)))?.manifest;
        let Some(holder) = find(&manifest.service.name) else { continue };
        for requirement in &manifest.capabilities.required {
            let of_type = |grant: &&CapabilityGrant| grant.resource.object_id == requirement.capability_type;
            let source = grants.iter().find(of_type).map(|source| source.capability_id);
            // What no catalogue names has no root to be derived from.
            let grantor = if source.is_some() { supervisor } else { root };
            let rights = requirement.rights();
            grants.push(grant(grantor, holder, &requirement.capability_type, rights, source)?);
        }
    }
    Ok(grants)
}

fn grant(
    grantor: IdentityId,
    grantee: IdentityId,
    capability_type: &str,
    permissions: Permissions,
    parent: Option<CapabilityId>,
) -> Result<CapabilityGrant> {
    let mut id = [0; CapabilityId::BYTES];
    getrandom::fill(&mut id).context("the kernel's random source")?;
    Ok(CapabilityGrant {
        capability_id: CapabilityId(id),
        grantor,
        grantee,
        resource: Resource { object_type: ObjectType::Service, object_id: capability_type.to_owned() },
        permissions,
        restrictions: None,
        parent,
    })
}

fn texts(errors: &[manifest::ManifestError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
