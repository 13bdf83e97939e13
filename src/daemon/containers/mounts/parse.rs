//! `-v` and `--mount` in the API's words become [`Mount`]s: what Docker refuses is refused in its words.
//!
//! Source: Docker's rules for `HostConfig.Binds` and `HostConfig.Mounts`.

use std::path::{Component, Path};

use super::{Mount, Wanted};
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{MountRequest, VolumeOptions};
use crate::http::api::volume::VolumeCreate;

/// What a mode's words say; each class at most once.
#[derive(Debug, Default)]
struct Mode {
    is_read_only: bool,
    propagation: Option<String>,
    is_nocopy: bool,
}

/// Reads `ro,z,rshared,nocopy`; `None` when a word is unknown or of a class that was there already.
fn mode(text: &str) -> Option<Mode> {
    let mut mode = Mode::default();
    let mut seen = [false; 5];
    for word in text.split(',').filter(|_| !text.is_empty()) {
        let class = match word {
            "ro" | "rw" => {
                mode.is_read_only = word == "ro";
                0
            }
            // Labels of SELinux: nothing to do here.
            "z" | "Z" => 1,
            _ if is_propagation(word) => {
                mode.propagation = Some(word.to_owned());
                2
            }
            "nocopy" => {
                mode.is_nocopy = true;
                3
            }
            // Hints for other platforms.
            "consistent" | "cached" | "delegated" | "default" => 4,
            _ => return None,
        };
        if std::mem::replace(&mut seen[class], true) {
            return None;
        }
    }
    Some(mode)
}

fn is_propagation(word: &str) -> bool {
    matches!(word, "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave")
}

/// `[source:]destination[:mode]`; a source that is no absolute path is a volume's name.
pub fn bind(text: &str, volume_driver: &str) -> Result<Wanted> {
    let invalid = || format!("invalid volume specification: '{text}'");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, words) = match parts[..] {
        [destination] if !destination.is_empty() => ("", destination, ""),
        // A destination and a mode name no volume.
        [source, destination] if !source.is_empty() && mode(destination).is_none() => {
            (source, destination, "")
        }
        [source, destination, words] if !source.is_empty() => (source, destination, words),
        _ => return Err(Error::invalid(invalid())),
    };
    let mode = mode(words).ok_or_else(|| Error::invalid(format!("invalid mode: {words}")))?;
    let is_bind = source.starts_with('/');
    let refused = |kind: &str, why: &str| {
        Error::invalid(format!("{}: invalid mount config for type \"{kind}\": {why}", invalid()))
    };
    let kind = if is_bind { "bind" } else { "volume" };
    if is_bind && mode.is_nocopy {
        return Err(refused(kind, "field VolumeOptions must not be specified"));
    }
    if !is_bind && mode.propagation.is_some() {
        return Err(refused(kind, "field BindOptions must not be specified"));
    }
    let destination = destination_of(destination).map_err(|why| refused(kind, &why))?;
    let mount = Mount {
        kind: kind.to_owned(),
        destination,
        mode: words.to_owned(),
        rw: !mode.is_read_only,
        ..Mount::default()
    };
    if is_bind {
        let propagation = mode.propagation.unwrap_or_else(|| "rprivate".to_owned());
        return Ok(Wanted {
            mount: Mount { source: source.to_owned(), propagation, is_source_made: true, ..mount },
            volume: None,
        });
    }
    let request =
        VolumeCreate { name: source.to_owned(), driver: volume_driver.to_owned(), ..VolumeCreate::default() };
    Ok(volume(relabelled(mount), request, mode.is_nocopy))
}

/// Compat: Docker says `z` of every volume with a mode of its own, because it would relabel it.
fn relabelled(mount: Mount) -> Mount {
    let mode = if mount.mode.is_empty() { "z".to_owned() } else { mount.mode };
    Mount { mode, ..mount }
}

/// A destination alone, from `-v /path` or the image.
pub fn anonymous(destination: &str, volume_driver: &str) -> Result<Wanted> {
    let destination = destination_of(destination)
        .map_err(|why| Error::invalid(format!("invalid volume specification: '{destination}': {why}")))?;
    let mount = Mount { kind: "volume".to_owned(), destination, rw: true, ..Mount::default() };
    let request = VolumeCreate { driver: volume_driver.to_owned(), ..VolumeCreate::default() };
    Ok(volume(mount, request, false))
}

fn volume(mount: Mount, request: VolumeCreate, is_nocopy: bool) -> Wanted {
    let mount = Mount { is_anonymous: request.name.is_empty(), is_copied: !is_nocopy, ..mount };
    Wanted { mount, volume: Some(request) }
}

/// One entry of `HostConfig.Mounts`.
pub fn request(request: &MountRequest) -> Result<Wanted> {
    let refused =
        |why: String| Error::invalid(format!("invalid mount config for type \"{}\": {why}", request.kind));
    known(request).map_err(refused)
}

fn known(request: &MountRequest) -> Result<Wanted, String> {
    let destination = destination_of(&request.target)?;
    let kind = request.kind.as_str();
    for (field, owner, is_there) in [
        ("BindOptions", "bind", request.bind_options.is_some()),
        ("VolumeOptions", "volume", request.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", request.tmpfs_options.is_some()),
    ] {
        if is_there && kind != owner {
            return Err(format!("field {field} must not be specified"));
        }
    }
    let mount = Mount { kind: kind.to_owned(), destination, rw: !request.read_only, ..Mount::default() };
    match kind {
        "bind" => bind_request(request, mount),
        "volume" => volume_request(request, mount),
        "tmpfs" => tmpfs_request(request, mount),
        "image" => Err("this version of dewar does not mount images".to_owned()),
        _ => Err("mount type unknown".to_owned()),
    }
}

fn bind_request(request: &MountRequest, mount: Mount) -> Result<Wanted, String> {
    let source = request.source.as_str();
    let options = request.bind_options.clone().unwrap_or_default();
    if source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    if !options.propagation.is_empty() && !is_propagation(&options.propagation) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    if !source.starts_with('/') {
        return Err(format!("invalid mount path: '{source}' mount path must be absolute"));
    }
    if std::fs::symlink_metadata(source).is_err() && !options.create_mountpoint {
        return Err(format!("bind source path does not exist: {source}"));
    }
    if options.read_only_non_recursive && options.read_only_force_recursive {
        return Err("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive".to_owned());
    }
    if !request.read_only && (options.read_only_non_recursive || options.read_only_force_recursive) {
        return Err("mount options conflict: !ReadOnly && (ReadOnlyNonRecursive || ReadOnlyForceRecursive)"
            .to_owned());
    }
    let propagation =
        if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
    let mount = Mount {
        source: source.to_owned(),
        propagation,
        is_source_made: options.create_mountpoint,
        is_non_recursive: options.non_recursive,
        is_read_only_once: options.read_only_non_recursive,
        ..mount
    };
    Ok(Wanted { mount, volume: None })
}

fn volume_request(request: &MountRequest, mount: Mount) -> Result<Wanted, String> {
    let VolumeOptions { no_copy, labels, subpath, driver_config } =
        request.volume_options.clone().unwrap_or_default();
    let is_anonymous = request.source.is_empty();
    if !subpath.is_empty() {
        if is_anonymous {
            return Err("must not set Subpath when using anonymous volumes".to_owned());
        }
        if !is_local(&subpath) {
            return Err("subpath must be a relative path within the volume".to_owned());
        }
    }
    if request.read_only && is_anonymous {
        return Err("must not set ReadOnly mode when using anonymous volumes".to_owned());
    }
    let driver = driver_config.unwrap_or_default();
    let create = VolumeCreate {
        name: request.source.clone(),
        driver: driver.name,
        driver_opts: (!driver.options.is_empty()).then_some(driver.options),
        labels: (!labels.is_empty()).then_some(labels),
    };
    // What is below a subpath was put there by somebody: nothing of the image's belongs there.
    let is_nocopy = no_copy || !subpath.is_empty();
    Ok(volume(relabelled(Mount { subpath, ..mount }), create, is_nocopy))
}

fn tmpfs_request(request: &MountRequest, mount: Mount) -> Result<Wanted, String> {
    if !request.source.is_empty() {
        return Err("field Source must not be specified".to_owned());
    }
    let options = request.tmpfs_options.clone().unwrap_or_default();
    let mut data = Vec::new();
    if options.size_bytes < 0 {
        return Err(format!("invalid tmpfs size: {}", options.size_bytes));
    }
    if options.size_bytes > 0 {
        data.push(format!("size={}", options.size_bytes));
    }
    if options.mode != 0 {
        data.push(format!("mode={:o}", options.mode & 0o7777));
    }
    for option in &options.options {
        // Source: what Docker lets through; the rest would reach the kernel unchecked.
        match option.as_slice() {
            [word] if matches!(word.as_str(), "exec" | "noexec") => data.push(word.clone()),
            _ => return Err(format!("invalid tmpfs option: {:?}", option.join("="))),
        }
    }
    if request.read_only {
        data.push("ro".to_owned());
    }
    Ok(Wanted { mount: Mount { data, ..mount }, volume: None })
}

/// Whether a path goes down only.
fn is_local(path: &str) -> bool {
    let mut depth = 0_i32;
    !path.contains('\0')
        && Path::new(path).components().all(|part| match part {
            Component::Normal(_) => {
                depth += 1;
                true
            }
            Component::ParentDir => {
                depth -= 1;
                depth >= 0
            }
            Component::CurDir => true,
            Component::RootDir | Component::Prefix(_) => false,
        })
}

/// `CONTAINER[:mode]` of `--volumes-from`: the container, and whether it is read-only.
pub fn volumes_from(text: &str) -> Result<(&str, bool)> {
    if text.is_empty() {
        return Err(Error::invalid("volumes-from specification cannot be an empty string"));
    }
    let (container, words) = text.split_once(':').unwrap_or((text, ""));
    match mode(words) {
        // Propagation and copying are as with the container they come from.
        Some(mode) if mode.propagation.is_none() && !mode.is_nocopy => Ok((container, mode.is_read_only)),
        _ => Err(Error::invalid(format!("invalid mode: {words}"))),
    }
}

/// An absolute path below the root, `.` and `..` resolved by their letters; else why it is none.
pub fn destination_of(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("field Target must not be empty".to_owned());
    }
    if !text.starts_with('/') || text.contains('\0') {
        return Err(format!("invalid mount path: '{text}' mount path must be absolute"));
    }
    let mut clean = std::path::PathBuf::from("/");
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean == Path::new("/") {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(clean.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::{BindOptions, TmpfsOptions};

    #[test]
    fn binds_and_volumes_are_told_apart() {
        let of = |text: &str| bind(text, "").unwrap();
        let mount = of("/a:/b/../c:ro,z").mount;
        assert_eq!((mount.source.as_str(), mount.destination.as_str(), mount.rw), ("/a", "/c", false));
        assert_eq!((mount.propagation.as_str(), mount.mode.as_str()), ("rprivate", "ro,z"));
        let named = of("data:/c:nocopy");
        assert_eq!(named.volume.unwrap().name, "data");
        assert!(!named.mount.is_copied && !named.mount.is_anonymous);
        let anonymous = of("/c");
        assert!(anonymous.mount.is_anonymous && anonymous.mount.is_copied);
        assert_eq!(bind("data:/c", "odd").unwrap().volume.unwrap().driver, "odd");
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        let refuse = |text: &str| bind(text, "").unwrap_err().message;
        for text in ["", ":/b", "/a:", "/a:ro", "a:b:c:d", ":"] {
            assert!(refuse(text).starts_with("invalid "), "{text}: {}", refuse(text));
        }
        assert_eq!(refuse("/a:/b:odd"), "invalid mode: odd");
        assert_eq!(refuse("/a:/b:ro,rw"), "invalid mode: ro,rw");
        assert_eq!(refuse("/a:/b:ro,"), "invalid mode: ro,");
        assert_eq!(
            refuse("/a:b"),
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' \
             mount path must be absolute"
        );
        assert!(refuse("/a:/").ends_with("invalid specification: destination can't be '/'"));
        assert!(refuse("/a:/b:nocopy").ends_with("field VolumeOptions must not be specified"));
        assert!(refuse("data:/b:rshared").ends_with("field BindOptions must not be specified"));
    }

    fn refusal(kind: &str, change: impl FnOnce(&mut MountRequest)) -> String {
        let mut mount = MountRequest { kind: kind.into(), target: "/t".into(), ..MountRequest::default() };
        change(&mut mount);
        let message = request(&mount).unwrap_err().message;
        message.split_once(": ").unwrap().1.to_owned()
    }

    #[test]
    fn requests_are_checked_field_by_field() {
        assert_eq!(refusal("bind", |_| {}), "field Source must not be empty");
        assert_eq!(
            refusal("bind", |it| it.source = "a".into()),
            "invalid mount path: 'a' mount path must be absolute"
        );
        assert_eq!(
            refusal("bind", |it| it.source = "/nope".into()),
            "bind source path does not exist: /nope"
        );
        assert_eq!(refusal("odd", |_| {}), "mount type unknown");
        assert_eq!(refusal("volume", |it| it.target = String::new()), "field Target must not be empty");
        assert_eq!(refusal("tmpfs", |it| it.source = "/a".into()), "field Source must not be specified");
        assert_eq!(
            refusal("tmpfs", |it| it.bind_options = Some(BindOptions::default())),
            "field BindOptions must not be specified"
        );
        let subpath = |it: &mut MountRequest, path: &str| {
            it.volume_options = Some(VolumeOptions { subpath: path.into(), ..VolumeOptions::default() });
        };
        assert_eq!(
            refusal("volume", |it| subpath(it, "a")),
            "must not set Subpath when using anonymous volumes"
        );
        let climb = |it: &mut MountRequest| {
            it.source = "v".into();
            subpath(it, "a/../../b");
        };
        assert_eq!(refusal("volume", climb), "subpath must be a relative path within the volume");
        assert!(refusal("image", |_| {}).contains("does not mount images"));
    }

    #[test]
    fn tmpfs_options_become_mount_options() {
        let options = TmpfsOptions { size_bytes: 1 << 20, mode: 0o1770, options: vec![vec!["exec".into()]] };
        let mount = MountRequest {
            kind: "tmpfs".into(),
            target: "/t".into(),
            read_only: true,
            tmpfs_options: Some(options),
            ..MountRequest::default()
        };
        assert_eq!(request(&mount).unwrap().mount.data, ["size=1048576", "mode=1770", "exec", "ro"]);
    }

    #[test]
    fn volumes_from_takes_a_mode_of_access_only() {
        assert_eq!(volumes_from("web").unwrap(), ("web", false));
        assert_eq!(volumes_from("web:ro").unwrap(), ("web", true));
        assert_eq!(volumes_from("web:rw,z").unwrap(), ("web", false));
        assert!(volumes_from("web:rshared").is_err() && volumes_from("web:nocopy").is_err());
        assert!(volumes_from("").is_err() && volumes_from("web:odd").is_err());
    }
}
