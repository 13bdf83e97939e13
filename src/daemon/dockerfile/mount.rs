//! `RUN --mount=type=cache,target=/x`: one mount's options.

use super::ExpandError;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    fn name(self) -> &'static str {
        KINDS.into_iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

const KINDS: [(&str, Kind); 5] = [
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("tmpfs", Kind::Tmpfs),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
];

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    /// A second user gets one of its own.
    Private,
    /// A second user waits.
    Locked,
}

const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

/// One mount. What a text does not say is `None` or empty; defaults are the executor's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mount {
    pub kind: Kind,
    /// Stage or image.
    pub from: String,
    pub source: String,
    pub target: String,
    /// Of a cache, a secret or an agent.
    pub id: String,
    pub read_only: bool,
    /// Whether a secret or an agent must be there.
    pub required: bool,
    /// Of a tmpfs, in bytes.
    pub size: Option<u64>,
    pub sharing: Option<Sharing>,
    /// Permission bits.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Environment variable a secret goes to instead of a file.
    pub env: Option<String>,
}

/// Reads a mount, with `expand` applied to every value. The error is in Docker's words.
pub fn parse(text: &str, expand: &dyn Fn(&str) -> Result<String, ExpandError>) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut read_only = None;
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(expand(value).map_err(|cause| cause.to_string())?)),
            None => (field.as_str(), None),
        };
        let key = key.to_ascii_lowercase();
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => read_only = Some(true),
                "readwrite" | "rw" => read_only = Some(false),
                "required" if matches!(mount.kind, Kind::Secret | Kind::Ssh) => mount.required = true,
                "required" => return Err(unexpected(&key, mount.kind)),
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            }
            continue;
        };
        let invalid = || format!("invalid value for {key}: {value}");
        let number = |radix| {
            u32::from_str_radix(&value, radix).map_err(|_| format!("invalid value {value} for {key}"))
        };
        match key.as_str() {
            "type" => {
                let found = KINDS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(&value));
                mount.kind = found.ok_or_else(|| format!("unsupported mount type {value:?}"))?.1;
            }
            "from" => mount.from = value,
            "source" | "src" => mount.source = value,
            "target" | "dst" | "destination" => mount.target = value,
            "readonly" | "ro" => read_only = Some(switch(&value).ok_or_else(invalid)?),
            "readwrite" | "rw" => read_only = Some(!switch(&value).ok_or_else(invalid)?),
            "required" if matches!(mount.kind, Kind::Secret | Kind::Ssh) => {
                mount.required = switch(&value).ok_or_else(invalid)?;
            }
            "size" if mount.kind == Kind::Tmpfs => mount.size = Some(bytes(&value).ok_or_else(invalid)?),
            "required" | "size" => return Err(unexpected(&key, mount.kind)),
            "id" => mount.id = value,
            "sharing" => {
                let found = SHARINGS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(&value));
                mount.sharing = Some(found.ok_or_else(|| format!("unsupported sharing value {value:?}"))?.1);
            }
            "mode" => mount.mode = Some(number(8)?),
            "uid" => mount.uid = Some(number(10)?),
            "gid" => mount.gid = Some(number(10)?),
            "env" if mount.kind == Kind::Secret => mount.env = Some(value),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    mount.read_only = read_only.unwrap_or(!matches!(mount.kind, Kind::Cache | Kind::Tmpfs));
    check(&mount)?;
    Ok(mount)
}

fn unexpected(key: &str, kind: Kind) -> String {
    format!("unexpected key '{key}' for mount type '{}'", kind.name())
}

fn check(mount: &Mount) -> Result<(), String> {
    let kind = mount.kind;
    if matches!(kind, Kind::Bind | Kind::Tmpfs) {
        let given =
            [("mode", mount.mode.is_some()), ("uid", mount.uid.is_some()), ("gid", mount.gid.is_some())];
        if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(format!("{key} not allowed for {:?} type mounts", kind.name()));
        }
    }
    if kind == Kind::Secret {
        let fail = |cause: &str| Err(cause.to_owned());
        if !mount.from.is_empty() {
            return fail("secret mount should not have a from");
        }
        if mount.sharing.is_some() {
            return fail("secret mount should not define sharing");
        }
        if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
            return fail("invalid secret mount. one of source, target required");
        }
        if !mount.source.is_empty() && !mount.id.is_empty() {
            return fail("both source and id can't be set");
        }
    }
    if mount.sharing.is_some() && kind != Kind::Cache {
        return Err(format!("invalid cache sharing set for {} mount", kind.name()));
    }
    Ok(())
}

/// One line of comma separated values, some in double quotes.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let Some((part, after)) = rest.split_once('"') else {
                    return Err(
                        "failed to parse csv mounts: extraneous or missing \" in quoted-field".to_owned()
                    );
                };
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        rest = after;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err("failed to parse csv mounts: extraneous or missing \" in quoted-field".to_owned());
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
            if field.contains('"') {
                return Err("failed to parse csv mounts: bare \" in non-quoted-field".to_owned());
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// A truth value as Go reads it.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// `64m`, `1.5g`, `100`: units are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let value: f64 = text[..digits].parse().ok()?;
    let power = match text[digits..].trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let bytes = value * 1024f64.powi(power);
    (bytes < 9e18).then_some(bytes as u64)
}
