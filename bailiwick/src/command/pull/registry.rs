//! A registry, spoken to through the node: each request is one of `network`'s, decided and recorded there (decision 0028).

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use contracts::network::v1::{self as pb, NetworkErrorKind, fetch_part::Part};
use tokio::time::Instant;
use tonic::Streaming;

use super::{
    challenge::{Challenge, TOKEN_BYTES_MAX, token},
    reference::Reference,
};
use crate::{
    exit::{Failure, REFUSED},
    node::{Node, failed},
};

/// Of one request; the piece of a blob that it asks for fits in many times over.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// The node counts requests in windows of at most a minute, as it is delivered: so long one waits for its turn, and looks again.
const TURN_WAIT_MAX: Duration = Duration::from_secs(90);
const TURN_PAUSE: Duration = Duration::from_millis(500);

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The same may work a moment later.
    Passing(String),
    Lasting(anyhow::Error),
}

impl From<Trouble> for anyhow::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Passing(text) => anyhow!(text),
            Trouble::Lasting(error) => error,
        }
    }
}

pub(super) struct Registry<'a> {
    node: &'a Node,
    pub(super) origin: String,
    repository: String,
    /// `user:password` in base64, for this registry.
    credential: Option<String>,
    /// The header that it has asked for.
    authorization: Option<String>,
}

/// An answer whose body comes.
pub(super) struct Answer {
    pub(super) status: u32,
    headers: Vec<pb::Header>,
    parts: Streaming<pb::FetchPart>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.as_str())
    }

    /// The next piece; none at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            let part = self.parts.message().await.map_err(|status| Trouble::Lasting(failed(status)))?;
            match part.and_then(|part| part.part) {
                Some(Part::Body(data)) => return Ok(Some(data)),
                Some(Part::End(_)) => return Ok(None),
                Some(Part::Failed(error)) => return Err(trouble("", &error)),
                Some(Part::Head(_)) => {}
                None => return Err(Trouble::Passing("the answer was cut".to_owned())),
            }
        }
    }

    /// All of it, if it is no more than that.
    pub(super) async fn whole(&mut self, what: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (whole.len() + piece.len()) as u64 > bytes_max {
                bail!("{what} has more than {bytes_max} bytes");
            }
            whole.extend(piece);
        }
        Ok(whole)
    }
}

/// What a request that failed means. `origin` is whom a rule would have to name.
fn trouble(origin: &str, error: &pb::NetworkError) -> Trouble {
    match error.kind() {
        NetworkErrorKind::PolicyDenied => Trouble::Lasting(
            Failure::new(REFUSED, format!("refused: {}{}", error.text, rule_for(origin))).into(),
        ),
        NetworkErrorKind::ConnectionFailed | NetworkErrorKind::Timeout => {
            Trouble::Passing(error.text.clone())
        }
        _ => Trouble::Lasting(anyhow!("{}", error.text)),
    }
}

/// The rule by URL that lets a place be reached, also one with a special address.
fn rule_for(origin: &str) -> String {
    let Some((_, host)) = origin.split_once("://") else { return String::new() };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    format!(
        "; if {host} is to be reached, `bailiwick network rules` shows the rules in force: add\n    [[rule]]\n    id = \"registry\"\n    \
         applies_to = \"system\"\n    url_pattern = \"{name}\"\n    allow = true\n    priority = 900\n  and give the file to \
         `bailiwick network rules set FILE`. A refusal by an address needs a rule of policy that allows `connect` to it."
    )
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        node: &'a Node,
        reference: &Reference,
        plain: bool,
        credential: Option<String>,
    ) -> Self {
        Self {
            node,
            origin: reference.origin(plain),
            repository: reference.repository.clone(),
            credential,
            authorization: None,
        }
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.origin, self.repository)
    }

    /// A manifest by tag or digest, a blob by digest; whoever is not known yet says who they are and asks once more.
    pub(super) async fn get(&mut self, rest: &str, headers: &[(&str, String)]) -> Result<Answer, Trouble> {
        let url = self.url(rest);
        let answer = self.ask(&url, headers, self.authorization.clone()).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        // A token has an end, so that an old one is no reason to give up.
        self.authorize(&answer).await.map_err(Trouble::Lasting)?;
        let answer = self.ask(&url, headers, self.authorization.clone()).await?;
        match answer.status {
            401 | 403 => Err(Trouble::Lasting(self.not_let_in(answer.status))),
            _ => Ok(answer),
        }
    }

    fn not_let_in(&self, status: u32) -> anyhow::Error {
        let why = match self.credential {
            Some(_) => "with the credential that this node has for it",
            None => {
                "without a credential; one stands in `registries.toml` of the node's configuration folder"
            }
        };
        anyhow!("{} does not give {} {why} (status {status})", self.origin, self.repository)
    }

    async fn authorize(&mut self, refused: &Answer) -> Result<()> {
        let challenge = refused
            .header("www-authenticate")
            .context("the registry asks for no credential that it names")?;
        let basic = self.credential.as_ref().map(|credential| format!("Basic {credential}"));
        let challenge =
            Challenge::parse(challenge, &self.origin).map_err(|text| anyhow!("{}: {text}", self.origin))?;
        self.authorization = match challenge {
            Challenge::Basic => Some(basic.ok_or_else(|| self.not_let_in(refused.status))?),
            Challenge::Bearer { url } => {
                let mut answer = self.ask(&url, &[], basic).await?;
                if answer.status != 200 {
                    return Err(self.not_let_in(answer.status).context("no token was given"));
                }
                let bytes = answer.whole("the token", TOKEN_BYTES_MAX).await?;
                Some(format!("Bearer {}", token(&bytes).map_err(|text| anyhow!(text))?))
            }
        };
        Ok(())
    }

    /// Waits for its turn where the node counts requests.
    async fn ask(
        &self,
        url: &str,
        headers: &[(&str, String)],
        authorization: Option<String>,
    ) -> Result<Answer, Trouble> {
        let lasting = |error: anyhow::Error| Trouble::Lasting(error);
        let authorization = authorization.map(|value| ("authorization", value));
        let all = headers.iter().cloned().chain(authorization);
        let request = pb::FetchRequest {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: all.map(|(name, value)| pb::Header { name: name.to_owned(), value }).collect(),
            timeout_ms: u32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
            // What is compared with its digest may come from anywhere. All else is the registry's own word: a redirect could
            // leave TLS behind.
            no_redirects: !url.starts_with(&self.url("blobs/")),
            ..pb::FetchRequest::default()
        };
        let until = Instant::now() + TURN_WAIT_MAX;
        loop {
            let mut network = self.node.network_patient("system.network.fetch").await.map_err(lasting)?;
            let parts = network.fetch(request.clone()).await.map_err(|status| lasting(failed(status)))?;
            let mut parts = parts.into_inner();
            let first = parts.message().await.map_err(|status| lasting(failed(status)))?;
            match first.and_then(|part| part.part) {
                Some(Part::Head(head)) => {
                    return Ok(Answer { status: head.status, headers: head.headers, parts });
                }
                Some(Part::Failed(error))
                    if error.kind() == NetworkErrorKind::RateLimitExceeded && Instant::now() < until =>
                {
                    tokio::time::sleep(TURN_PAUSE).await;
                }
                Some(Part::Failed(error)) => return Err(trouble(&origin_of(url), &error)),
                _ => return Err(Trouble::Passing("the node's network service said nothing".to_owned())),
            }
        }
    }
}

fn origin_of(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    format!("{scheme}://{}", rest.split(['/', '?']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_told_which_rule_is_missing() {
        let error =
            pb::NetworkError { kind: NetworkErrorKind::PolicyDenied.into(), text: "loopback".to_owned() };
        let Trouble::Lasting(said) = trouble(&origin_of("http://127.0.0.1:5000/v2/x?y"), &error) else {
            panic!()
        };
        let said = said.to_string();
        assert!(said.contains("url_pattern = \"127.0.0.1\"") && said.contains("network rules set"), "{said}");
        assert_eq!(origin_of("https://[::1]:5000/v2"), "https://[::1]:5000");
        assert!(rule_for("https://[::1]:5000").contains("url_pattern = \"[::1]\""));
        assert!(rule_for("https://a.test").contains("url_pattern = \"a.test\""));
    }
}
