//! What a change would do, and what was before: nothing here changes anything.

use contracts::supervisor::v1 as pb;
use tonic::Status;

use super::apply::Applier;
use crate::{core::supervisor::SupervisorError, manifest::limits::SERVICES_MAX};

impl Applier {
    pub(super) async fn planned(&self, request: pb::PlanRequest) -> Result<pb::PlanReply, Status> {
        if request.manifests.len() > SERVICES_MAX {
            return Err(SupervisorError::Busy { what: "manifests of one plan", limit: SERVICES_MAX }.into());
        }
        let mut changes = Vec::with_capacity(request.manifests.len());
        for pb::ApplyManifestRequest { manifest, file } in request.manifests {
            changes.push(match self.plan(&file, &manifest).await {
                Ok(planned) => pb::PlannedChange {
                    name: planned.name,
                    change: match &planned.before {
                        None => "new",
                        Some(before) if *before == planned.text => "unchanged",
                        Some(_) => "changed",
                    }
                    .to_owned(),
                    after: planned.text,
                    before: planned.before.unwrap_or_default(),
                    restarts: planned.restarts,
                    why: String::new(),
                },
                Err(error @ (SupervisorError::ShuttingDown | SupervisorError::Unavailable(_))) => {
                    return Err(error.into());
                }
                Err(error) => pb::PlannedChange {
                    change: "refused".to_owned(),
                    why: error.to_string(),
                    ..pb::PlannedChange::default()
                },
            });
        }
        Ok(pb::PlanReply { changes })
    }

    pub(super) fn generations(&self) -> Result<pb::Generations, SupervisorError> {
        let all = self.history.all().map_err(SupervisorError::Unavailable)?;
        let changes = all.changes().map(|change| pb::GenerationChange {
            number: change.number,
            time_ms: change.time_ms,
            service: change.service.clone(),
            manifest: change.manifest.map_or_else(Vec::new, |hash| hash.0.to_vec()),
        });
        Ok(pb::Generations { current: all.current(), changes: changes.collect() })
    }

    pub(super) async fn generation(&self, number: u64) -> Result<pb::Generation, SupervisorError> {
        let all = self.history.all().map_err(SupervisorError::Unavailable)?;
        let gone = |text: String| SupervisorError::NoGeneration { number, text };
        let wanted = all.at(number).ok_or_else(|| {
            gone(format!("the last is {}; `bailiwick service generations` lists them", all.current()))
        })?;
        let now = self
            .inbox
            .view(|machine| {
                let users = machine.setups().filter(|setup| super::start::is_users(&setup.manifest));
                let name = |setup: &crate::core::supervisor::ServiceSetup| setup.name().to_owned();
                users.map(|setup| (name(setup), setup.manifest.text.clone())).collect::<Vec<_>>()
            })
            .await?;
        let mut services = Vec::with_capacity(wanted.len());
        for (name, hash) in &wanted {
            let manifest = self.history.text(hash).map_err(gone)?;
            let in_force = now.iter().any(|(known, text)| known == name && *text == manifest);
            services.push(pb::GenerationService { name: name.clone(), manifest, in_force });
        }
        let absent = now.into_iter().map(|(name, _)| name).filter(|name| !wanted.contains_key(name));
        Ok(pb::Generation { number, services, absent: absent.collect() })
    }
}
