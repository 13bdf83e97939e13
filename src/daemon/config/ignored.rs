//! What a dockerd's configuration file may have that dewar does not: ignored by name, or refused where ignoring it
//! would run containers with less protection than was asked for.

use serde_json::Value;

/// Keys that have no effect, each with the reason; the start lists those that are set.
pub static IGNORED: &[(&str, &str)] = &[
    ("api-cors-header", "browsers have no business with this API"),
    ("bridge-accept-fwmark", "marks of the host's rules are not looked at"),
    ("builder", "there is no builder yet"),
    ("cdi-spec-dirs", "there are no CDI devices"),
    ("containerd", "there is no containerd"),
    ("containerd-namespace", "there is no containerd"),
    ("containerd-plugin-namespace", "there is no containerd"),
    ("cpu-rt-period", "real-time scheduling is not set up"),
    ("cpu-rt-runtime", "real-time scheduling is not set up"),
    ("cri-containerd", "there is no containerd"),
    ("deprecated-key-path", "it has had no effect since Docker 17"),
    ("exec-opts", "dewar sets cgroups up itself, without systemd"),
    ("firewall-backend", "rules are nftables', made without a program"),
    ("init-path", "the init of --init is dewar's own"),
    ("ip-forward-no-drop", "no policy of the host's is changed, with or without it"),
    ("max-concurrent-builds", "there is no builder yet"),
    ("min-api-version", "every version from 1.24 is served"),
    ("network-control-plane-mtu", "there is no swarm"),
    ("network-diagnostic-port", "there is no swarm"),
    ("node-generic-resources", "there is no swarm"),
    ("nri-opts", "there is no NRI"),
    ("oom-score-adjust", "an init script sets it"),
    ("raw-logs", "the log has no colours"),
    ("registry-auth", "credentials come with each request"),
    ("storage-opts", "overlay2 has no options here"),
    ("swarm-default-advertise-addr", "there is no swarm"),
    ("userland-proxy-path", "there is no such program: what rules cannot carry the daemon relays itself"),
];

/// Keys that promise isolation dewar does not give, each with the values that promise nothing.
pub static REFUSED: &[(&str, &str)] = &[
    ("rootless", "dewar runs as root"),
    ("selinux-enabled", "dewar sets no SELinux labels"),
    ("userns-remap", "dewar has no user namespaces"),
];

/// Why a key is ignored, if it is one of those.
pub fn reason(key: &str) -> Option<&'static str> {
    IGNORED.iter().find(|(name, _)| *name == key).map(|(_, why)| *why)
}

/// Why a key with this value is refused; `Some(None)` is one that asks for nothing.
pub fn refusal(key: &str, value: &Value) -> Option<Option<&'static str>> {
    let (_, why) = REFUSED.iter().find(|(name, _)| *name == key)?;
    let asks_nothing = matches!(value, Value::Bool(false) | Value::Null) || value.as_str() == Some("");
    Some((!asks_nothing).then_some(*why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::options;

    #[test]
    fn nothing_is_both_honoured_and_ignored() {
        let names = IGNORED.iter().chain(REFUSED).map(|(name, _)| *name);
        let mut all: Vec<&str> = names.collect();
        assert!(all.iter().all(|name| options::by_key(name).is_none()));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn only_a_promise_is_refused() {
        assert_eq!(refusal("userns-remap", &"".into()), Some(None));
        assert!(refusal("userns-remap", &"default".into()).flatten().is_some());
        assert_eq!(refusal("selinux-enabled", &false.into()), Some(None));
        assert_eq!(refusal("debug", &true.into()), None);
    }
}
