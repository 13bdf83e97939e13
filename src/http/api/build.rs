//! `POST /build`: what is to be built, as the query says it. The body is the context; messages come back.

use std::collections::BTreeMap;

use super::container::Ulimit;
use super::query::{Pairs, Parameter, Query};
use super::{Endpoint, Method, Shape};

/// Where secrets for `RUN --mount=type=secret` come: base64url of a JSON object of names and base64 contents.
pub const SECRETS: &str = "X-Dewar-Build-Secrets";

/// The query of `POST /build`.
#[derive(Clone, Debug, Default)]
pub struct BuildQuery {
    pub dockerfile: String,
    pub remote: String,
    /// Repeats: `t`.
    pub tags: Vec<String>,
    pub quiet: bool,
    pub no_cache: bool,
    pub cache_from: Vec<String>,
    pub pull: bool,
    /// Absent means yes.
    pub remove: Option<bool>,
    pub force_remove: bool,
    pub build_args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: String,
    pub platform: String,
    pub network_mode: String,
    /// Repeats: `extrahosts`.
    pub extra_hosts: Vec<String>,
    /// Bytes.
    pub memory: i64,
    pub memory_swap: i64,
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub cgroup_parent: String,
    /// Bytes.
    pub shm_size: i64,
    pub ulimits: Vec<Ulimit>,
    /// Repeats: `securityopt`.
    pub security_opt: Vec<String>,
    pub squash: bool,
    /// `2` asks for BuildKit.
    pub version: String,
    pub session: String,
    pub outputs: String,
}

/// A parameter whose value is JSON.
fn json<T: serde::de::DeserializeOwned + Default>(name: &str, text: &str) -> Result<T, String> {
    if text.is_empty() {
        return Ok(T::default());
    }
    super::decode(text.as_bytes()).map_err(|cause| format!("invalid query parameter {name:?}: {cause}"))
}

impl Query for BuildQuery {
    fn write(&self, pairs: &mut Pairs) {
        let mut put =
            |name: &str, text: Option<String>| pairs.extend(text.map(|text| (name.to_owned(), text)));
        for (name, value) in [
            ("dockerfile", &self.dockerfile),
            ("remote", &self.remote),
            ("target", &self.target),
            ("platform", &self.platform),
            ("networkmode", &self.network_mode),
            ("cpusetcpus", &self.cpuset_cpus),
            ("cpusetmems", &self.cpuset_mems),
            ("cgroupparent", &self.cgroup_parent),
        ] {
            put(name, value.to_text());
        }
        for (name, value) in [
            ("q", self.quiet),
            ("nocache", self.no_cache),
            ("pull", self.pull),
            ("forcerm", self.force_remove),
            ("squash", self.squash),
        ] {
            put(name, value.to_text());
        }
        put("rm", self.remove.to_text());
        for (name, value) in [
            ("memory", self.memory),
            ("memswap", self.memory_swap),
            ("cpushares", self.cpu_shares),
            ("cpuperiod", self.cpu_period),
            ("cpuquota", self.cpu_quota),
            ("shmsize", self.shm_size),
        ] {
            put(name, (value != 0).then(|| value.to_string()));
        }
        for (name, value, is_empty) in [
            ("cachefrom", serde_json::json!(self.cache_from), self.cache_from.is_empty()),
            ("buildargs", serde_json::json!(self.build_args), self.build_args.is_empty()),
            ("labels", serde_json::json!(self.labels), self.labels.is_empty()),
            ("ulimits", serde_json::json!(self.ulimits), self.ulimits.is_empty()),
        ] {
            put(name, (!is_empty).then(|| value.to_string()));
        }
        let repeated =
            [("t", &self.tags), ("extrahosts", &self.extra_hosts), ("securityopt", &self.security_opt)];
        for (name, values) in repeated {
            pairs.extend(values.iter().map(|value| (name.to_owned(), value.clone())));
        }
    }

    fn read(pairs: &Pairs) -> Result<BuildQuery, String> {
        let mut query = BuildQuery::default();
        for (name, value) in pairs.iter().rev() {
            let number = || {
                i64::from_text(value).map_err(|cause| format!("invalid query parameter {name:?}: {cause}"))
            };
            let text = || value.clone();
            match name.as_str() {
                "dockerfile" => query.dockerfile = text(),
                "remote" => query.remote = text(),
                "target" => query.target = text(),
                "platform" => query.platform = text(),
                "networkmode" => query.network_mode = text(),
                "cpusetcpus" => query.cpuset_cpus = text(),
                "cpusetmems" => query.cpuset_mems = text(),
                "cgroupparent" => query.cgroup_parent = text(),
                "version" => query.version = text(),
                "session" => query.session = text(),
                "outputs" => query.outputs = text(),
                "q" => query.quiet = bool::from_text(value)?,
                "nocache" => query.no_cache = bool::from_text(value)?,
                "pull" => query.pull = bool::from_text(value)?,
                "rm" => query.remove = Parameter::from_text(value)?,
                "forcerm" => query.force_remove = bool::from_text(value)?,
                "squash" => query.squash = bool::from_text(value)?,
                "memory" => query.memory = number()?,
                "memswap" => query.memory_swap = number()?,
                "cpushares" => query.cpu_shares = number()?,
                "cpuperiod" => query.cpu_period = number()?,
                "cpuquota" => query.cpu_quota = number()?,
                "shmsize" => query.shm_size = number()?,
                "cachefrom" => query.cache_from = json(name, value)?,
                "buildargs" => query.build_args = json(name, value)?,
                "labels" => query.labels = json(name, value)?,
                "ulimits" => query.ulimits = json(name, value)?,
                _ => {}
            }
        }
        let all = |wanted: &str| {
            let found = pairs.iter().filter(|(name, value)| name == wanted && !value.is_empty());
            found.map(|(_, value)| value.clone()).collect()
        };
        (query.tags, query.extra_hosts) = (all("t"), all("extrahosts"));
        query.security_opt = all("securityopt");
        Ok(query)
    }
}

pub static IMAGE_BUILD: Endpoint<BuildQuery, (), ()> =
    Endpoint::new("ImageBuild", Method::Post, "/build", Shape::Stream, 200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let query = BuildQuery {
            tags: vec!["a".into(), "b:1".into()],
            build_args: [("A".to_owned(), Some("1".to_owned()))].into(),
            remove: Some(false),
            memory: 7,
            ulimits: vec![Ulimit { name: "nofile".into(), hard: 2, soft: 1 }],
            extra_hosts: vec!["x:1.2.3.4".into()],
            security_opt: vec!["seccomp=unconfined".into(), "no-new-privileges".into()],
            ..BuildQuery::default()
        };
        let mut pairs = Vec::new();
        query.write(&mut pairs);
        assert_eq!(format!("{:?}", BuildQuery::read(&pairs).unwrap()), format!("{query:?}"));
        let bad = vec![("labels".to_owned(), "[".to_owned())];
        assert!(BuildQuery::read(&bad).unwrap_err().contains("labels"));
    }
}
