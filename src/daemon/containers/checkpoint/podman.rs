//! An archive that podman wrote, made a checkpoint as dewar's own are: what is read is what `archive` reads, in
//! another layout and without digests.
//!
//! ```text
//!  checkpoint/*.img            images/, with keys for what is external ([`adopt`])
//!  checkpoint/tmpfs-dev-*.img  tmpfs-N.tar: CRIU would have GNU tar unpack them
//!  checkpoint/descriptors.json descriptors.json
//!  config.dump, spec.dump      the container's record ([`documents`])
//!  rootfs-diff.tar,            rootfs.tar ([`rootfs`])
//!  deleted.files
//!  devshm-checkpoint.tar       shm.tar
//!  network.status              its addresses, which are asked for again
//!  volumes/, stats-dump        the same
//! ```
//!
//! Passed over: `ctr.log`, `artifacts/` and what a later podman may add: nothing of it is written.
//! Nothing says what an archive is to hold, so the space there is bounds what it may bring. podman leaves files out
//! that the image had and the container changed, unless its host has one of that name: they come back as the image
//! has them, and CRIU notices those that are open and not as long as they were.

mod documents;
pub mod export;
mod rootfs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::Value;

use super::archive::{self, Header, MOST_FILES, RESERVE, Whiteouts, bad, is_plain};
use super::import::{self, Import};
use super::manifest::{self, Manifest, Needs, SavedVolume};
use super::seal::{self, Known};
use crate::daemon::containers::network::Frozen;
use crate::daemon::containers::{create, limits};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::{Image, ImageId, codec};
use crate::runtime::criu::{images, rewrite};
use crate::runtime::layer::Limits;
use crate::runtime::layer::tar::{Entry, Kind, Reader};
use crate::runtime::shim::checkpoint::adopt::{TmpfsImage, adopt};
use documents::Described;

/// The checkpoint's name: podman has none.
const NAME: &str = "podman";
/// podman's archive of what changed in the root file system, until it is a layer.
const DIFF: &str = "rootfs-diff.tar";
/// A document in memory: the largest known are some hundred KiB.
const MOST_TEXT: u64 = 16 << 20;

/// What of an archive is kept in memory.
#[derive(Default)]
struct Texts {
    config: Option<Vec<u8>>,
    spec: Option<Vec<u8>>,
    deleted: Option<Vec<u8>>,
    descriptors: Option<Vec<u8>>,
    network: Option<Vec<u8>>,
    /// When the processes were saved, in seconds since 1970.
    saved: i64,
}

/// Reads an uncompressed archive of podman's into the empty directory `into`, as [`archive::read`] does one of
/// dewar's; `begin` sees the header before anything is made of it. Beside the header, what its owner is to be told.
///
/// # Errors
/// Conflict without `trust`, and for what no container of dewar's can be; NotFound for an image that is not here;
/// InvalidParameter: it is damaged, or none of podman's; what `begin` says; System.
pub fn read(
    engine: &Engine,
    stream: impl Read,
    into: &Path,
    request: &Import,
    begin: &mut dyn FnMut(&Header) -> Result<()>,
) -> Result<(Header, Vec<String>)> {
    if !request.trust {
        return Err(untrusted(stream));
    }
    let mut space = Space::of(into)?;
    let texts = spool(stream, into, &mut space)?;
    let document = |text: &Option<Vec<u8>>, name: &str| -> Result<Value> {
        let text = text.as_ref().ok_or_else(|| bad(format!("it has no {name}")))?;
        serde_json::from_slice(text).map_err(|cause| bad(format!("{name}: {cause}")))
    };
    let config = document(&texts.config, "config.dump")?;
    let spec = document(&texts.spec, "spec.dump")?;
    let mut described = documents::describe(&config, &spec)?;
    let mut warnings = std::mem::take(&mut described.warnings);

    let images_dir = into.join("images");
    let facts = rewrite::facts(&images_dir)?;
    if facts.has_user_namespace {
        return Err(documents::cannot("its processes are in a user namespace"));
    }
    if let Some(module) = facts.labelled_by {
        return Err(documents::cannot(&format!("its processes are labelled by {module}")));
    }
    let image = image(engine, request, &described, &mut warnings)?;
    let record = &mut described.record;
    record.image_id = image.id.to_string();
    create::fill_defaults(record, engine)?;
    warnings.extend(limits::discard_unsupported(&mut record.host_config.resources, limits::kernel()?));

    let volumes = saved_volumes(into, &described)?;
    described.surroundings.has_shm = into.join("shm.tar").exists();
    for TmpfsImage { image, archive } in adopt(into, &described.surroundings)? {
        unpack_image(&images_dir.join(&image), &into.join(archive), &mut space)?;
    }
    fs::write(into.join("descriptors.json"), descriptors(texts.descriptors.as_deref())?)
        .map_err(|cause| Error::system("write descriptors.json", cause))?;
    let diff = into.join(DIFF);
    space.take(fs::metadata(&diff).map_or(0, |meta| meta.len()))?;
    let changes = rootfs::Changes {
        diff: diff.exists().then_some(diff.as_path()),
        deleted: &rootfs::deleted(texts.deleted.as_deref())?,
        root_mode: facts.root_mode.unwrap_or(0o755),
        mount_points: &described.mount_points,
    };
    rootfs::write(&engine.images.layers_of(&image.id)?, &changes, &into.join("rootfs.tar"))?;
    let _ = fs::remove_file(&diff);

    // An older podman may have none.
    let networks = match &texts.network {
        Some(_) => documents::places(&document(&texts.network, "network.status")?),
        None => BTreeMap::new(),
    };
    let stats = images::stats(into).ok();
    let connections = images::connections(&images_dir)?.len();
    let mut manifest = Manifest {
        version: manifest::PLAIN,
        name: NAME.to_owned(),
        container_id: described.id,
        container_name: described.name,
        image_id: image.id.to_string(),
        created: jiff::Timestamp::from_second(texts.saved).unwrap_or_default().to_string(),
        architecture: facts.architecture.to_owned(),
        engine: "podman".to_owned(),
        image: described.image,
        record: Some(Box::new(described.record)),
        freezing_us: stats.map(|stats| stats.freezing_us),
        frozen_us: stats.map(|stats| stats.frozen_us),
        places: Frozen { networks, ..Frozen::default() },
        needs: Needs { tcp: connections as u32, ..Needs::default() },
        volumes,
        ..Manifest::default()
    };
    manifest.files = seal::seal(into, Known::new())?;
    let header = Header { version: archive::VERSION, manifest, whiteouts: Whiteouts::default() };
    begin(&header)?;
    Ok((header, warnings))
}

/// The refusal of an archive that nobody trusts, or that would not be taken anyway.
fn untrusted(stream: impl Read) -> Error {
    let mut reader = Reader::new(stream, Limits { entries: 1, ..Limits::default() });
    match reader.next_entry() {
        Err(cause) => bad(cause),
        Ok(Some(entry)) if is_podmans(&String::from_utf8_lossy(&entry.path)) => Error::conflict(
            "dewar did not write it: what it holds is run with the credentials it says, and nothing shows that it \
             is whole; --trust takes it all the same",
        ),
        Ok(_) => no_checkpoint(),
    }
}

fn no_checkpoint() -> Error {
    Error::invalid("it was not written by dewar, or is no archive of a checkpoint")
}

/// Whether a member may be one of podman's archives.
fn is_podmans(name: &str) -> bool {
    let name = name.strip_prefix("./").unwrap_or(name);
    let top = name.split('/').next().unwrap_or_default();
    matches!(top, "artifacts" | "checkpoint" | "volumes" | "config.dump" | "spec.dump" | "network.status")
        || matches!(top, "ctr.log" | "deleted.files")
        || inner(name).is_some()
}

/// The bytes an archive may still bring.
struct Space(u64);

impl Space {
    fn of(dir: &Path) -> Result<Space> {
        let space =
            rustix::fs::statvfs(dir).map_err(|cause| Error::system(format!("look at {dir:?}"), cause))?;
        Ok(Space(space.f_bavail.saturating_mul(space.f_frsize).saturating_sub(RESERVE)))
    }

    fn take(&mut self, bytes: u64) -> Result<()> {
        self.0 = self
            .0
            .checked_sub(bytes)
            .ok_or_else(|| Error::system("make room", "the checkpoint has more bytes than are free"))?;
        Ok(())
    }
}

/// Writes the archive's files where they belong, under names that are known.
fn spool(stream: impl Read, into: &Path, space: &mut Space) -> Result<Texts> {
    let limits = Limits { entries: MOST_FILES as u64 * 2, bytes: space.0, name: 4096 };
    let mut reader = Reader::new(stream, limits);
    for directory in ["images", "volumes"] {
        fs::create_dir(into.join(directory))
            .map_err(|cause| Error::system(format!("make {directory}"), cause))?;
    }
    let mut texts = Texts::default();
    let mut is_podmans = false;
    while let Some(entry) = reader.next_entry().map_err(bad)? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        if name.starts_with("pre-checkpoint/") || name == "checkpoint/parent" {
            return Err(documents::cannot("it builds on an earlier one (--pre-checkpoint)"));
        }
        if entry.kind == Kind::Directory {
            continue;
        }
        let text = match name {
            "config.dump" => Some(&mut texts.config),
            "spec.dump" => Some(&mut texts.spec),
            "deleted.files" => Some(&mut texts.deleted),
            "checkpoint/descriptors.json" => Some(&mut texts.descriptors),
            "network.status" => Some(&mut texts.network),
            _ => None,
        };
        if let Some(text) = text {
            let found = archive::text(&mut reader, &entry, MOST_TEXT)?;
            if text.replace(found).is_some() {
                return Err(bad(format!("{name:?} comes twice")));
            }
            continue;
        }
        let Some(inner) = inner(name) else { continue };
        if entry.kind != Kind::File || entry.sparse.is_some() {
            return Err(bad(format!("{name:?} is no plain file")));
        }
        if name == "checkpoint/inventory.img" {
            (texts.saved, is_podmans) = (entry.mtime.secs, true);
        }
        space.take(entry.size)?;
        store(&mut reader, &entry, name, &into.join(inner))?;
    }
    if !is_podmans {
        return Err(no_checkpoint());
    }
    Ok(texts)
}

/// Where a member's content goes, if it is one that is wanted.
fn inner(name: &str) -> Option<String> {
    let inner = match name {
        DIFF | "stats-dump" | "dump.log" => name.to_owned(),
        "devshm-checkpoint.tar" => "shm.tar".to_owned(),
        name => match name.strip_prefix("checkpoint/") {
            Some(image) if image.ends_with(".img") => format!("images/{image}"),
            Some(_) => return None,
            None => name.strip_prefix("volumes/").map(|file| format!("volumes/{file}"))?,
        },
    };
    is_plain(&inner).then_some(inner)
}

fn store<R: Read>(reader: &mut Reader<R>, entry: &Entry, name: &str, path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(bad(format!("{name:?} comes twice")));
    }
    archive::receive(reader, path, entry.size, &[]).map(drop)
}

/// The image below the container, which is here or, if that is asked for, is pulled.
fn image(
    engine: &Engine,
    request: &Import,
    described: &Described,
    warnings: &mut Vec<String>,
) -> Result<Image> {
    let (name, wanted) = (&described.image, &described.image_id);
    let by_id = || ImageId::parse(wanted).and_then(|id| engine.images.get(&id).ok());
    let by_name = || (!name.is_empty()).then(|| engine.images.resolve(name).ok()).flatten();
    if let Some(image) = by_id() {
        return Ok(image);
    }
    if by_name().is_none() && request.pull {
        import::pull(engine, name)?;
    }
    let image = by_id().or_else(by_name).ok_or_else(|| import::no_image(name, wanted))?;
    if image.id.to_string() != *wanted {
        warnings.push(format!(
            "image {name} is {} here and was {wanted} there: files may not be those its processes have open",
            image.id
        ));
    }
    Ok(image)
}

/// The volumes whose content came.
fn saved_volumes(into: &Path, described: &Described) -> Result<Vec<SavedVolume>> {
    let mut saved: BTreeMap<String, SavedVolume> = BTreeMap::new();
    for mount in described.record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let file = format!("volumes/{}.tar", mount.name);
        if !is_plain(&file) || !into.join(&file).exists() {
            continue;
        }
        let known = saved.entry(mount.name.clone()).or_insert_with(|| SavedVolume {
            name: mount.name.clone(),
            file,
            destinations: Vec::new(),
        });
        known.destinations.push(mount.destination.clone());
    }
    let known = |name: &str| saved.values().any(|saved| saved.file == format!("volumes/{name}"));
    let volumes = fs::read_dir(into.join("volumes")).map_err(|cause| Error::system("list volumes", cause))?;
    for entry in volumes.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !known(&name) {
            return Err(bad(format!("it brings {name:?}, of which its container has no volume")));
        }
    }
    Ok(saved.into_values().collect())
}

/// Makes a plain tar of an image that CRIU had packed by gzip.
fn unpack_image(image: &Path, archive: &Path, space: &mut Space) -> Result<()> {
    let file = File::open(image)
        .map_err(|_| bad(format!("it has no {}", image.file_name().unwrap_or_default().to_string_lossy())))?;
    let failed = |cause: io::Error| Error::system(format!("unpack {image:?}"), cause);
    let mut content = codec::decompress(BufReader::new(file))?.take(space.0.saturating_add(1));
    let out = File::options().write(true).create_new(true).mode(0o600).open(archive).map_err(failed)?;
    let mut out = BufWriter::with_capacity(256 << 10, out);
    let bytes = io::copy(&mut content, &mut out).map_err(failed)?;
    out.flush().map_err(failed)?;
    space.take(bytes)?;
    // CRIU does not ask for it any more.
    fs::remove_file(image).map_err(failed)
}

/// What fds 0, 1 and 2 were.
fn descriptors(text: Option<&[u8]>) -> Result<Vec<u8>> {
    let keys: Vec<String> = match text {
        Some(text) => {
            serde_json::from_slice(text).map_err(|cause| bad(format!("descriptors.json: {cause}")))?
        }
        None => return Err(bad("it has no descriptors.json")),
    };
    let [stdin, stdout, stderr, ..] = keys.as_slice() else {
        return Err(bad("descriptors.json: it names less than three"));
    };
    serde_json::to_vec(&[stdin, stdout, stderr])
        .map_err(|cause| Error::system("write descriptors.json", cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::layer::tar::Writer;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-podman-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn tar(entries: &[(&str, Kind, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, kind, content) in entries {
            let mut entry = Entry::new(*path, *kind, 0o600);
            match kind {
                Kind::File => entry.size = content.len() as u64,
                _ => entry.link = content.as_bytes().to_vec(),
            }
            writer.append(&entry, &mut content.as_bytes()).unwrap();
        }
        writer.finish().unwrap().0
    }

    #[test]
    fn only_known_names_are_written_and_none_leads_away() {
        let dir = scratch("names");
        let archive = tar(&[
            ("artifacts/", Kind::Directory, ""),
            ("config.dump", Kind::File, "{}"),
            ("checkpoint/inventory.img", Kind::File, "inventory"),
            ("checkpoint/../../../etc/passwd", Kind::File, "root"),
            ("checkpoint/sub/pages-1.img", Kind::File, "pages"),
            ("/checkpoint/pages-1.img", Kind::File, "pages"),
            ("checkpoint/pages-1.img/", Kind::Directory, ""),
            ("volumes/../x.tar", Kind::File, "x"),
            ("ctr.log", Kind::Symlink, "/etc/passwd"),
            ("later.document", Kind::File, "?"),
            ("devshm-checkpoint.tar", Kind::File, "shm"),
        ]);
        let texts = spool(archive.as_slice(), &dir, &mut Space(1 << 20)).unwrap();
        assert_eq!(texts.config.as_deref(), Some(&b"{}"[..]));
        let written: Vec<String> = seal::sizes(&dir).unwrap().into_iter().map(|(name, _)| name).collect();
        let mut written = written.iter().map(String::as_str).collect::<Vec<_>>();
        written.sort_unstable();
        assert_eq!(written, ["images/inventory.img", "shm.tar"]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_hostile_is_refused() {
        let inventory = ("checkpoint/inventory.img", Kind::File, "inventory");
        let refusal = |entries: &[(&str, Kind, &str)], space: u64| {
            let dir = scratch("hostile");
            let error = spool(tar(entries).as_slice(), &dir, &mut Space(space)).err().unwrap();
            fs::remove_dir_all(&dir).unwrap();
            error.message
        };
        let twice = refusal(&[inventory, inventory], 1 << 20);
        assert!(twice.contains("comes twice"), "{twice}");
        let link = refusal(&[("checkpoint/pages-1.img", Kind::Symlink, "/dev/sda")], 1 << 20);
        assert!(link.contains("no plain file"), "{link}");
        let large = refusal(&[("checkpoint/pages-1.img", Kind::File, &"x".repeat(4000))], 3000);
        assert!(large.contains("more bytes than are free") || large.contains("4000 bytes"), "{large}");
        let parent = refusal(&[("checkpoint/parent", Kind::Symlink, "../pre-checkpoint")], 1 << 20);
        assert!(parent.contains("earlier one"), "{parent}");
        let other = refusal(&[("readme", Kind::File, "hello")], 1 << 20);
        assert!(other.contains("no archive of a checkpoint"), "{other}");
        let cut = tar(&[inventory]);
        let dir = scratch("cut");
        assert!(spool(&cut[..515], &dir, &mut Space(1 << 20)).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_bomb_is_as_large_as_there_is_room() {
        let dir = scratch("bomb");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::copy(&mut io::repeat(0).take(8 << 20), &mut packed).unwrap();
        fs::write(dir.join("tmpfs-dev-1.tar.gz.img"), packed.finish().unwrap()).unwrap();
        let mut space = Space(1 << 20);
        let failure = unpack_image(&dir.join("tmpfs-dev-1.tar.gz.img"), &dir.join("tmpfs-1.tar"), &mut space);
        assert!(failure.unwrap_err().message.contains("more bytes than are free"));
        assert!(fs::metadata(dir.join("tmpfs-1.tar")).unwrap().len() <= (1 << 20) + 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn descriptors_are_three() {
        let text = br#"["/dev/null","pipe:[1]","pipe:[2]","/more"]"#;
        assert_eq!(descriptors(Some(text)).unwrap(), br#"["/dev/null","pipe:[1]","pipe:[2]"]"#);
        for text in [None, Some(&b"[]"[..]), Some(b"{}")] {
            assert!(descriptors(text).is_err());
        }
    }
}
