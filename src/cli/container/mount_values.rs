//! How `--volume` and `--mount` are written.
//!
//! Only the spelling is checked here; what a mount may be is the daemon's to say.

use crate::http::api::container::{BindOptions, DriverConfig, MountRequest, TmpfsOptions, VolumeOptions};

use super::values::{bytes, pair};

/// What `--volume` asks for.
#[derive(Debug, PartialEq)]
pub enum Volume {
    /// `source:destination[:mode]`, for `HostConfig.Binds`.
    Bind(String),
    /// A destination alone: an anonymous volume.
    Anonymous(String),
}

/// `[SOURCE:]DESTINATION[:MODE]`; a source that starts with `.` or `~` is made absolute here, because the
/// daemon has another working directory.
pub fn volume(text: &str) -> Result<Volume, String> {
    let absolute = |path: &str| {
        if path.starts_with('/') { Ok(()) } else { Err(format!("mount path {path:?} must be absolute")) }
    };
    let mode_ok = |mode: &str| {
        let known = [
            "rw",
            "ro",
            "z",
            "Z",
            "private",
            "rprivate",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "nocopy",
            "consistent",
            "cached",
            "delegated",
        ];
        match mode.split(',').find(|word| !known.contains(word)) {
            Some(word) => Err(format!("invalid mode {word:?}")),
            None => Ok(()),
        }
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [destination] => {
            absolute(destination)?;
            Ok(Volume::Anonymous(destination.to_owned()))
        }
        [source, destination] if !source.is_empty() => {
            absolute(destination)?;
            Ok(Volume::Bind(format!("{}:{destination}", host_path(source)?)))
        }
        [source, destination, mode] if !source.is_empty() => {
            absolute(destination)?;
            mode_ok(mode)?;
            Ok(Volume::Bind(format!("{}:{destination}:{mode}", host_path(source)?)))
        }
        _ => Err("expected [SOURCE:]DESTINATION[:MODE]".to_owned()),
    }
}

/// A path on this host made absolute if it is written relative; a bare word is a volume's name.
fn host_path(source: &str) -> Result<String, String> {
    if !source.starts_with('.') {
        return Ok(source.to_owned());
    }
    let here = std::env::current_dir().map_err(|cause| format!("find the working directory: {cause}"))?;
    let mut path = here;
    for part in std::path::Path::new(source).components() {
        match part {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.into_os_string().into_string().map_err(|_| "the working directory is not valid UTF-8".to_owned())
}

/// `type=bind,source=/a,target=/b,readonly` as `--mount` writes it. Docker's texts.
pub fn mount(text: &str) -> Result<MountRequest, String> {
    let mut mount = MountRequest { kind: "volume".to_owned(), ..MountRequest::default() };
    let mut bind = BindOptions::default();
    let mut volume = VolumeOptions::default();
    let mut driver = DriverConfig::default();
    let mut tmpfs = TmpfsOptions::default();
    let mut recursion = String::new();
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let is_switch = matches!(
            key.as_str(),
            "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" | "bind-create-src"
        );
        let Some(value) = value.or(is_switch.then_some("true")) else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        let invalid = || format!("invalid value for {key}: {value}");
        let on = || match value {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
            _ => Err(invalid()),
        };
        match key.as_str() {
            "type" => mount.kind = value.to_ascii_lowercase(),
            "source" | "src" => mount.source = host_path(value)?,
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "readonly" | "ro" => mount.read_only = on()?,
            "consistency" => mount.consistency = value.to_ascii_lowercase(),
            "bind-propagation" => bind.propagation = value.to_ascii_lowercase(),
            "bind-nonrecursive" => bind.non_recursive = on()?,
            "bind-create-src" => bind.create_mountpoint = on()?,
            "bind-recursive" => {
                recursion = value.to_owned();
                match value {
                    "enabled" => {}
                    "disabled" => bind.non_recursive = true,
                    "writable" => bind.read_only_non_recursive = true,
                    "readonly" => bind.read_only_force_recursive = true,
                    _ => {
                        return Err(format!(
                            "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                        ));
                    }
                }
            }
            "volume-nocopy" => volume.no_copy = on()?,
            "volume-subpath" => volume.subpath = value.to_owned(),
            "volume-label" => {
                let (name, label) = pair(value)?;
                volume.labels.insert(name, label);
            }
            "volume-driver" => driver.name = value.to_owned(),
            "volume-opt" => {
                let (name, option) = pair(value)?;
                driver.options.insert(name, option);
            }
            "tmpfs-size" => tmpfs.size_bytes = bytes(value).map_err(|_| invalid())?,
            "tmpfs-mode" => tmpfs.mode = u32::from_str_radix(value, 8).map_err(|_| invalid())?,
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    volume.driver_config = (driver != DriverConfig::default()).then_some(driver);
    mount.bind_options = (bind != BindOptions::default()).then_some(bind);
    mount.volume_options = (volume != VolumeOptions::default()).then_some(volume);
    mount.tmpfs_options = (tmpfs != TmpfsOptions::default()).then_some(tmpfs);
    for (owner, is_there) in [
        ("volume", mount.volume_options.is_some()),
        ("bind", mount.bind_options.is_some()),
        ("tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if is_there && mount.kind != owner {
            return Err(format!("cannot mix '{owner}-*' options with mount type '{}'", mount.kind));
        }
    }
    if matches!(recursion.as_str(), "writable" | "readonly") && !mount.read_only {
        return Err(format!(
            "option 'bind-recursive={recursion}' requires 'readonly' to be specified in conjunction"
        ));
    }
    let propagation = mount.bind_options.as_ref().map_or("", |bind| &bind.propagation);
    if recursion == "readonly" && propagation != "rprivate" {
        return Err(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in \
                    conjunction"
                .to_owned(),
        );
    }
    Ok(mount)
}

/// The fields of one CSV record: quotes protect commas, two of them are one.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("one is there from the start");
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if is_quoted => is_quoted = false,
            '"' if field.is_empty() => is_quoted = true,
            '"' => return Err("parse error: bare \" in non-quoted-field".to_owned()),
            ',' if !is_quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    if is_quoted {
        return Err("parse error: extraneous or missing \" in quoted-field".to_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_come_in_three_forms() {
        assert_eq!(volume("/data"), Ok(Volume::Anonymous("/data".into())));
        assert_eq!(volume("/a:/b:ro"), Ok(Volume::Bind("/a:/b:ro".into())));
        assert_eq!(volume("named:/b"), Ok(Volume::Bind("named:/b".into())));
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./x:/b"), Ok(Volume::Bind(format!("{}/x:/b", here.display()))));
        for text in ["", "data", "/a:b", "/a:/b:what", ":/b", "/a:/b:ro:x", "/dst:ro"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_keep_the_options_of_their_type() {
        let bind = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((bind.source.as_str(), bind.target.as_str(), bind.read_only), ("/a", "/b", true));
        assert_eq!(bind.bind_options.unwrap().propagation, "rslave");
        let tmpfs =
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (1 << 20, 0o1770));
        assert_eq!(mount("target=/v").unwrap().kind, "volume");
        let text = r#"src=v,dst=/v,volume-driver=local,volume-label=a=b,volume-opt=type=nfs,"volume-opt=o=addr=1.2.3.4,rw""#;
        let volume = mount(text).unwrap().volume_options.unwrap();
        assert_eq!(volume.labels["a"], "b");
        let driver = volume.driver_config.unwrap();
        assert_eq!((driver.name.as_str(), driver.options["o"].as_str()), ("local", "addr=1.2.3.4,rw"));
    }

    #[test]
    fn mounts_are_refused_in_dockers_words() {
        for (text, error) in [
            ("type=bind,src=/a", "target is required"),
            (
                "type=tmpfs,target=/b,bind-propagation=private",
                "cannot mix 'bind-*' options with mount type 'tmpfs'",
            ),
            ("target=/b,what=1", "unexpected key 'what' in 'what=1'"),
            ("target=/b,what", "invalid field 'what' must be a key=value pair"),
            ("target=/b,readonly=maybe", "invalid value for readonly: maybe"),
            ("target=/b,\"x", "parse error: extraneous or missing \" in quoted-field"),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=writable",
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            ),
        ] {
            assert_eq!(mount(text).unwrap_err(), error, "{text}");
        }
        assert!(mount("").is_err());
    }
}
