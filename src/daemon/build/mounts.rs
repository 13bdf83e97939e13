//! What a `RUN` has mounted while it runs: caches, files of the context, of stages and images, and secrets.
//!
//! ```text
//!  bind    context, read-only   the directory itself
//!          else                 layers mounted with a directory to write to, which is thrown away
//!  cache   a directory that stays, see `cache`
//!  tmpfs   the container's own
//!  secret  a file on a tmpfs that goes with the step
//! ```
//!
//! Where they are mounted is made in the container's layer, and taken out of it again before that becomes one of an
//! image.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::cache::{self, InUse};
use super::copy::tree_digest;
use super::stage::Stage;
use super::{Secret, root};
use crate::daemon::dockerfile::Run;
use crate::daemon::dockerfile::mount::{self, Kind, Mount, Sharing};
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir;
use crate::http::api::container::{MountRequest, TmpfsOptions};
use crate::runtime::{Overlay, mounts as host_mounts};

/// Where scripts written in a Dockerfile are in the container.
pub const PIPES: &str = "/dev/pipes";

/// The mounts a `RUN` asks for, and what it says of them.
pub fn read(stage: &Stage<'_>, run: &Run) -> Result<Vec<(String, Mount)>> {
    let mut mounts = Vec::new();
    for text in &run.mounts {
        let expand = |word: &str| {
            crate::daemon::dockerfile::expand(word, stage.job.plan.file.escape, &|name| stage.variable(name))
        };
        let mut mount = mount::parse(text, &expand).map_err(Error::invalid)?;
        match mount.kind {
            Kind::Ssh => return Err(Error::not_implemented("--mount=type=ssh: there is no agent to ask")),
            Kind::Secret if mount.env.is_some() => {
                // It would be seen by whoever inspects the container.
                return Err(Error::not_implemented(
                    "--mount=type=secret,env=: secrets are files: use target=",
                ));
            }
            Kind::Secret => {
                if mount.id.is_empty() {
                    let named = [&mount.source, &mount.target].into_iter().find(|name| !name.is_empty());
                    let name = named.map(|name| name.rsplit('/').next().unwrap_or_default());
                    mount.id = name.unwrap_or_default().to_owned();
                }
                if mount.target.is_empty() {
                    mount.target = format!("/run/secrets/{}", mount.id);
                }
            }
            Kind::Bind | Kind::Cache | Kind::Tmpfs => {}
        }
        if mount.target.is_empty() {
            return Err(Error::invalid(format!("--mount={text}: target is required")));
        }
        mount.target = root::absolute(&stage.config.working_dir, &mount.target);
        if mount.target == "/" {
            return Err(Error::invalid(format!("--mount={text}: invalid mount target \"/\"")));
        }
        mounts.push((text.clone(), mount));
    }
    Ok(mounts)
}

/// What the cache is to know of them: the words, and a digest of what may be read. Of secrets nothing.
pub fn key(stage: &Stage<'_>, mounts: &[(String, Mount)]) -> Result<String> {
    let mut key = String::new();
    for (text, mount) in mounts {
        key.push_str(&format!("--mount={text} "));
        if mount.kind != Kind::Bind {
            continue;
        }
        let digest = match mount.from.as_str() {
            "" => {
                let inode = root::open(stage.job.context.root.as_fd(), mount.source.as_bytes())
                    .map_err(|errno| missing(mount, &errno))?;
                tree_digest(inode.as_fd())?
            }
            from => match stage.job.image_from(from, stage.at)? {
                Some(id) => id.hex().to_owned(),
                None => "scratch".to_owned(),
            },
        };
        key.push_str(&format!("({digest}) "));
    }
    Ok(key)
}

fn missing(mount: &Mount, cause: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("--mount: source {:?}: {cause}", mount.source))
}

/// Mounts ready for a container, undone when dropped.
pub struct Prepared<'a> {
    pub mounts: Vec<MountRequest>,
    /// What the image does not have of the places they are mounted on, outer directories first.
    pub stubs: Vec<Vec<u8>>,
    /// On the host.
    mounted: Vec<PathBuf>,
    /// Directories that are of no use any more.
    made: Vec<PathBuf>,
    _caches: Vec<InUse<'a>>,
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        for at in self.mounted.iter().rev() {
            if let Err(error) = host_mounts::unmount(at) {
                log::warn!("{error}");
            }
        }
        for dir in &self.made {
            // What cannot be removed now goes with the build.
            let _ = state_dir::remove_tree(dir);
        }
    }
}

impl<'a> Prepared<'a> {
    /// Waits for caches that somebody else has to himself.
    pub fn new(
        stage: &Stage<'a>,
        mounts: &[(String, Mount)],
        script: Option<&(String, String)>,
    ) -> Result<Prepared<'a>> {
        let mut prepared = Prepared {
            mounts: Vec::new(),
            stubs: Vec::new(),
            mounted: Vec::new(),
            made: Vec::new(),
            _caches: Vec::new(),
        };
        let mut secrets = None;
        for (_, mount) in mounts {
            let request = match mount.kind {
                Kind::Tmpfs => MountRequest {
                    kind: "tmpfs".to_owned(),
                    tmpfs_options: Some(TmpfsOptions {
                        size_bytes: mount.size.and_then(|size| size.try_into().ok()).unwrap_or_default(),
                        ..TmpfsOptions::default()
                    }),
                    ..MountRequest::default()
                },
                Kind::Bind => bind(prepared.bind(stage, mount)?, mount.read_only),
                Kind::Cache => {
                    let cache = take_cache(stage, mount)?;
                    let path = cache.path.clone();
                    prepared._caches.push(cache);
                    bind(path, mount.read_only)
                }
                Kind::Secret => match stage.job.options.secrets.get(&mount.id) {
                    Some(Secret(content)) => {
                        let dir = match &secrets {
                            Some(dir) => PathBuf::clone(dir),
                            None => secrets.insert(prepared.secret_dir(stage)?).clone(),
                        };
                        bind(write_secret(&dir, prepared.mounts.len(), mount, content)?, true)
                    }
                    None if mount.required => {
                        return Err(Error::invalid(format!("secret {}: not found", mount.id)));
                    }
                    None => continue,
                },
                // Refused when it was read.
                Kind::Ssh => continue,
            };
            prepared.add(stage, &mount.target, request)?;
        }
        if let Some((name, content)) = script {
            let dir = stage.job.staging.make("script")?;
            let path = dir.join("script");
            let write = || -> std::io::Result<()> {
                std::fs::write(&path, content)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            };
            write().map_err(|cause| Error::system("write a script", cause))?;
            prepared.made.push(dir);
            prepared.add(stage, &format!("{PIPES}/{name}"), bind(path, true))?;
        }
        Ok(prepared)
    }

    fn add(&mut self, stage: &Stage<'_>, target: &str, request: MountRequest) -> Result<()> {
        let below = stage.job.root_of(stage.image.as_ref())?;
        let place = root::resolve(below.as_fd(), target.as_bytes())?;
        let path = &place.path;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let part = &path[..end];
            if root::lstat(below.as_fd(), part)?.is_none() && !self.stubs.iter().any(|stub| stub == part) {
                self.stubs.push(part.to_vec());
            }
        }
        self.mounts.push(MountRequest { target: target.to_owned(), ..request });
        Ok(())
    }

    /// Where on the host what is to be bound is.
    fn bind(&mut self, stage: &Stage<'_>, mount: &Mount) -> Result<PathBuf> {
        let job = stage.job;
        let (tree, lower) = match mount.from.as_str() {
            "" if mount.read_only => {
                let place = root::resolve(job.context.root.as_fd(), mount.source.as_bytes())?;
                return existing(&job.context.path, &place, mount);
            }
            "" => (None, vec![job.context.path.clone()]),
            from => {
                let image = job.image_from(from, stage.at)?;
                let lower = match &image {
                    Some(id) => job.engine.images.layers_of(id)?,
                    None => Vec::new(),
                };
                (Some(job.root_of(image.as_ref())?), lower)
            }
        };
        let tree = tree.as_ref().map_or(job.context.root.as_fd(), |tree| tree.as_fd());
        let place = root::resolve(tree, mount.source.as_bytes())?;
        let dir = job.staging.make("mount")?;
        self.made.push(dir.clone());
        let parts = ["lower", "upper", "work", "root"].map(|name| dir.join(name));
        for part in &parts {
            state_dir::make_dir(part, 0o755)?;
        }
        let [empty, upper, work, at] = parts;
        let overlay =
            Overlay { lower: [lower, vec![empty]].concat(), upper, work, volatile: true, shared: None };
        host_mounts::mount_layers(&overlay, &at)?;
        self.mounted.push(at.clone());
        existing(&at, &place, mount)
    }

    fn secret_dir(&mut self, stage: &Stage<'_>) -> Result<PathBuf> {
        let number = stage.job.staging.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = stage.job.staging.run_dir.join(format!("secrets-{number}"));
        state_dir::make_dir(&dir, 0o700)?;
        self.made.push(dir.clone());
        let words = ["mode=0711", "nosuid", "nodev", "noexec"].map(str::to_owned);
        host_mounts::mount("tmpfs", "tmpfs", &dir, &words)?;
        self.mounted.push(dir.clone());
        Ok(dir)
    }
}

/// `place`, which is below the directory `dir`, as a path of the host.
fn existing(dir: &Path, place: &root::Place, mount: &Mount) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    if place.stat.is_none() {
        return Err(missing(mount, &"no such file or directory"));
    }
    Ok(dir.join(std::ffi::OsStr::from_bytes(&place.path)))
}

fn bind(source: PathBuf, read_only: bool) -> MountRequest {
    MountRequest {
        kind: "bind".to_owned(),
        source: source.to_string_lossy().into_owned(),
        read_only,
        ..MountRequest::default()
    }
}

fn write_secret(dir: &Path, number: usize, mount: &Mount, content: &[u8]) -> Result<PathBuf> {
    let path = dir.join(number.to_string());
    let write = || -> std::io::Result<()> {
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(content)?;
        let (uid, gid) = (mount.uid.unwrap_or_default(), mount.gid.unwrap_or_default());
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        file.set_permissions(std::fs::Permissions::from_mode(mount.mode.unwrap_or(0o400)))
    };
    // Not what it is: the name alone may be told.
    write().map_err(|cause| Error::system(format!("make secret {}", mount.id), cause))?;
    Ok(path)
}

fn take_cache<'a>(stage: &Stage<'a>, mount: &Mount) -> Result<InUse<'a>> {
    let job = stage.job;
    let id = if mount.id.is_empty() { &mount.target } else { &mount.id };
    let sharing = mount.sharing.unwrap_or(Sharing::Shared);
    let cache = job.engine.builds.caches.take(id, sharing, &|| job.cancel.check())?;
    if cache.is_new {
        let seed = cache::Seed {
            mode: mount.mode.unwrap_or(0o755),
            owner: (mount.uid.unwrap_or_default(), mount.gid.unwrap_or_default()),
        };
        let tree = match mount.from.as_str() {
            "" => None,
            from => {
                let root = job.root_of(job.image_from(from, stage.at)?.as_ref())?;
                Some(
                    root::open(root.as_fd(), mount.source.as_bytes())
                        .map_err(|errno| missing(mount, &errno))?,
                )
            }
        };
        cache.fill(&seed, tree.as_ref())?;
    }
    Ok(cache)
}
