//! Who may do what, decided by others: the chain of authorization plugins.
//!
//! Every plugin of the chain is asked before a request is served, in order, and about its answer, in reverse order.
//! The first that does not plainly allow it ends the matter: a plugin that is gone, late, or says anything but
//! `"Allow": true` is one that denies.
//!
//! The chain changes as a whole: [`Authorization::prepare`] finds and greets every plugin and touches nothing,
//! [`Authorization::commit`] cannot fail. A request is asked about with one chain from its beginning to its end.
//!
//! Not here: what a plugin is told of a request (`routes::authorization`), where plugins are (`discovery`).

mod discovery;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use crate::http::plugin::{CallError, Caller, Limits};
use discovery::Places;

/// What the protocol calls this kind of plugin.
const KIND: &str = "authz";

/// The plugins that are asked, now.
pub struct Authorization {
    places: Places,
    chain: RwLock<Arc<Chain>>,
    /// Whether there is any plugin: looked at by every request.
    is_on: AtomicBool,
}

/// Plugins in the order they are asked.
#[derive(Debug, Default)]
pub struct Chain(Vec<Plugin>);

#[derive(Debug)]
struct Plugin {
    name: String,
    caller: Caller,
}

/// A chain whose plugins were all there; see [`Authorization::prepare`].
#[derive(Debug)]
pub struct Prepared(Chain);

/// What a plugin is asked. Field names and which are left out are Docker's.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Question {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(rename = "UserAuthNMethod", skip_serializing_if = "String::is_empty")]
    pub user_authn_method: String,
    pub request_method: String,
    pub request_uri: String,
    /// Base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub request_headers: BTreeMap<String, String>,
    /// Each the base64 of a PEM text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_peer_certificates: Vec<String>,
    /// Of the answer, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status_code: Option<u16>,
    /// Base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub response_body: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub response_headers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Verdict {
    allow: bool,
    msg: String,
    err: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Manifest {
    implements: Option<Vec<String>>,
}

impl Authorization {
    /// Nobody is asked yet.
    pub fn new(exec_root: &Path) -> Authorization {
        Authorization {
            places: Places::new(exec_root),
            chain: RwLock::default(),
            is_on: AtomicBool::new(false),
        }
    }

    /// Finds the plugins `names` and makes sure that each answers and is one for authorization.
    ///
    /// # Errors
    /// InvalidParameter, naming the plugin, when one is not there or is something else.
    pub fn prepare(&self, names: &[String]) -> Result<Prepared> {
        let mut chain = Vec::<Plugin>::new();
        for name in names {
            if chain.iter().any(|plugin| plugin.name == *name) {
                continue;
            }
            let address = self.places.find(name)?;
            let plugin = Plugin { name: name.clone(), caller: Caller::new(address, Limits::default()) };
            plugin.activate()?;
            chain.push(plugin);
        }
        Ok(Prepared(Chain(chain)))
    }

    /// Makes a prepared chain the one that is asked, from the next request on.
    pub fn commit(&self, prepared: Prepared) {
        let is_on = !prepared.0.0.is_empty();
        // A swap of one pointer: whole, whoever panicked.
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(prepared.0);
        self.is_on.store(is_on, Ordering::Release);
    }

    /// Whether anybody is asked.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// The plugins to ask about a request and its answer.
    pub fn chain(&self) -> Arc<Chain> {
        Arc::clone(&self.chain.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The plugins' names, in order.
    pub fn names(&self) -> Vec<String> {
        self.chain().0.iter().map(|plugin| plugin.name.clone()).collect()
    }
}

impl Chain {
    /// Asks whether a request may be served.
    ///
    /// # Errors
    /// Forbidden when a plugin denies it, System when one fails; the texts are Docker's.
    pub fn ask_request(&self, question: &Question) -> Result<()> {
        self.0.iter().try_for_each(|plugin| plugin.ask("AuthZPlugin.AuthZReq", question))
    }

    /// Asks whether an answer may be given.
    ///
    /// # Errors
    /// As [`Chain::ask_request`].
    pub fn ask_answer(&self, question: &Question) -> Result<()> {
        self.0.iter().rev().try_for_each(|plugin| plugin.ask("AuthZPlugin.AuthZRes", question))
    }
}

impl Plugin {
    fn activate(&self) -> Result<()> {
        let attempt = format!("activate authorization plugin {:?}", self.name);
        let answer = self
            .caller
            .call("Plugin.Activate", b"")
            .map_err(|cause| Error::invalid(format!("{attempt}: {cause}")))?;
        let manifest: Manifest = serde_json::from_slice(&answer)
            .map_err(|cause| Error::invalid(format!("{attempt}: read its answer: {cause}")))?;
        if manifest.implements.unwrap_or_default().iter().any(|kind| kind == KIND) {
            return Ok(());
        }
        Err(Error::invalid(format!("{attempt}: the plugin does not implement {KIND:?}")))
    }

    fn ask(&self, method: &str, question: &Question) -> Result<()> {
        let failed = |cause: String| {
            Error::system(format!("plugin {} failed with error", self.name), format!("{method}: {cause}"))
        };
        let question = serde_json::to_vec(question).map_err(|cause| failed(cause.to_string()))?;
        let answer =
            self.caller.call(method, &question).map_err(|cause: CallError| failed(cause.to_string()))?;
        judge(&self.name, &answer).map_err(|refusal| match refusal {
            Refusal::Denied(message) => Error::forbidden(message),
            Refusal::Failed(cause) => failed(cause),
        })
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Denied(String),
    Failed(String),
}

/// What a plugin's answer means. Only one meaning is "yes".
fn judge(name: &str, answer: &[u8]) -> Result<(), Refusal> {
    let verdict: Verdict = serde_json::from_slice(answer)
        .map_err(|cause| Refusal::Failed(format!("read the plugin's answer: {cause}")))?;
    if !verdict.err.is_empty() {
        return Err(Refusal::Failed(verdict.err));
    }
    if !verdict.allow {
        return Err(Refusal::Denied(format!("authorization denied by plugin {name}: {}", verdict.msg)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_is_one() {
        assert_eq!(judge("p", br#"{"Allow":true}"#), Ok(()));
        assert_eq!(judge("p", br#"{"Allow":true,"Msg":"fine","Err":"","Extra":1}"#), Ok(()));
        let denied =
            |message: &str| Err(Refusal::Denied(format!("authorization denied by plugin p: {message}")));
        assert_eq!(judge("p", br#"{"Allow":false,"Msg":"not you"}"#), denied("not you"));
        assert_eq!(judge("p", b"{}"), denied(""));
        assert_eq!(judge("p", br#"{"allow":true}"#), denied(""));
        assert_eq!(judge("p", br#"{"Allow":true,"Err":"oops"}"#), Err(Refusal::Failed("oops".to_owned())));
        for answer in [
            &b""[..],
            b"true",
            b"null",
            b"yes",
            br#"{"Allow":"true"}"#,
            br#"{"Allow":1}"#,
            br#"{"Allow":null}"#,
            br#"{"Allow":true"#,
            br#"{"Allow":true} {}"#,
            br#"{"Allow":false,"Allow":true}"#,
            b"\xff",
        ] {
            assert!(matches!(judge("p", answer), Err(Refusal::Failed(_))), "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn a_question_looks_as_dockers() {
        let mut question = Question {
            request_method: "POST".to_owned(),
            request_uri: "/v1.51/containers/create".to_owned(),
            ..Question::default()
        };
        let json = |question: &Question| serde_json::to_string(question).unwrap();
        assert_eq!(json(&question), r#"{"RequestMethod":"POST","RequestUri":"/v1.51/containers/create"}"#);
        question.user = "joe".to_owned();
        question.user_authn_method = "TLS".to_owned();
        question.request_body = "e30=".to_owned();
        question.response_status_code = Some(200);
        assert_eq!(
            json(&question),
            r#"{"User":"joe","UserAuthNMethod":"TLS","RequestMethod":"POST","RequestUri":"/v1.51/containers/create","RequestBody":"e30=","ResponseStatusCode":200}"#
        );
    }

    #[test]
    fn a_chain_that_cannot_be_prepared_changes_nothing() {
        let authorization = Authorization::new(Path::new("/nonexistent"));
        assert!(!authorization.is_on());
        let error = authorization.prepare(&["dewar-test-no-such-plugin".to_owned()]).unwrap_err();
        assert!(error.message.contains("dewar-test-no-such-plugin"), "{error}");
        assert!(!authorization.is_on() && authorization.names().is_empty());
        authorization.commit(authorization.prepare(&[]).unwrap());
        assert!(!authorization.is_on());
    }
}
