//! `dewar build`: what is to be built, and how it went. What is sent is `context.rs`'s and `pack.rs`'s affair.
//!
//! Compat: flags, words and exit codes are those of docker's classic builder; flags of BuildKit's that mean
//! nothing here are accepted, what they would promise is refused.

mod context;
mod pack;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::http::api::auth::{CONFIG_HEADER, configs_to_header};
use crate::http::api::build::{BuildQuery, IMAGE_BUILD, SECRETS};
use crate::http::api::image::JsonMessage;

use super::command::{Action, Args, Command, Flag, Matches};
use super::container::values;
use super::context::print;
use super::credentials;
use super::error::{Error, go_cause};
use super::format::size_total;
use super::progress;
use super::reference::Reference;

static ADD_HOST: Flag = Flag::many("add-host", "NAME:IP", "Add a line to /etc/hosts while building");
static BUILD_ARG: Flag =
    Flag::many("build-arg", "NAME[=VALUE]", "Set an ARG; a bare name takes the environment's");
static BUILDER: Flag = Flag::value("builder", "NAME", "Builder to use").ignored("there is one builder");
static CACHE_FROM: Flag =
    Flag::many("cache-from", "IMAGE", "Take steps from this image where they are the same");
static CGROUP_PARENT: Flag = Flag::value("cgroup-parent", "PATH", "Cgroup to build in");
static COMPRESS: Flag = Flag::switch("compress", "Send the context compressed");
static CONTENT_TRUST: Flag = Flag::switch("disable-content-trust", "Skip the check of image signatures")
    .ignored("image signatures are not checked");
static CPU_PERIOD: Flag = Flag::value("cpu-period", "MICROSECONDS", "Length of a period of --cpu-quota");
static CPU_QUOTA: Flag = Flag::value("cpu-quota", "MICROSECONDS", "CPU time a step may use in each period");
static CPU_SHARES: Flag =
    Flag::value("cpu-shares", "SHARES", "Share of CPU time when CPUs are busy (1024 is usual)").short('c');
static CPUSET_CPUS: Flag = Flag::value("cpuset-cpus", "LIST", "CPUs to build on, such as 0-3 or 0,1");
static CPUSET_MEMS: Flag = Flag::value("cpuset-mems", "LIST", "Memory nodes to build on");
static FILE: Flag =
    Flag::value("file", "PATH", "Dockerfile to build (CONTEXT/Dockerfile unless given)").short('f');
static FORCE_RM: Flag = Flag::switch("force-rm", "Remove the steps' containers also after a failure");
static IIDFILE: Flag = Flag::value("iidfile", "FILE", "Write the image's ID to this file");
static ISOLATION: Flag =
    Flag::value("isolation", "TECHNOLOGY", "Isolation of containers").refused("it is for Windows");
static LABEL: Flag = Flag::many("label", "KEY=VALUE", "Set a label of the image");
static LOAD: Flag =
    Flag::switch("load", "Put the image into the store").ignored("images are always put into the store");
static MEMORY: Flag =
    Flag::value("memory", "SIZE", "Limit of a step's memory, such as 512m or 1g").short('m');
static MEMORY_SWAP: Flag =
    Flag::value("memory-swap", "SIZE", "Limit of memory and swap together; -1 is none");
static NETWORK: Flag = Flag::value("network", "MODE", "Network of RUN instructions").default("default");
static NO_CACHE: Flag = Flag::switch("no-cache", "Carry out every step, also those done before");
static OUTPUT: Flag = Flag::many("output", "DESTINATION", "Write the result elsewhere")
    .short('o')
    .refused("what is built becomes an image; save and export write it elsewhere");
static PLATFORM: Flag = Flag::value("platform", "OS/ARCH", "Platform to build for");
static PROGRESS: Flag =
    Flag::value("progress", "KIND", "Way of showing progress (auto, plain, tty)").default("auto");
static PULL: Flag = Flag::switch("pull", "Fetch base images also if they are here");
static PUSH: Flag = Flag::switch("push", "Push the image").refused("use push after the build");
static QUIET: Flag = Flag::switch("quiet", "Print the image's ID only").short('q');
static RM: Flag =
    Flag::switch("rm", "Remove the steps' containers after a build that worked").default("true");
static SECRET: Flag =
    Flag::many("secret", "id=ID[,src=FILE|,env=NAME]", "Show a secret to RUN --mount=type=secret");
static SECURITY_OPT: Flag = Flag::many("security-opt", "OPTION", "Security options of RUN instructions");
static SHM_SIZE: Flag = Flag::value("shm-size", "SIZE", "Size of /dev/shm (64m unless given)");
static SQUASH: Flag =
    Flag::switch("squash", "Make one layer of those built").refused("layers are kept as they are");
static SSH: Flag = Flag::many("ssh", "AGENT", "Show an SSH agent to RUN --mount=type=ssh")
    .refused("agents cannot be reached from a build");
static TAG: Flag = Flag::many("tag", "NAME[:TAG]", "Name of the image").short('t');
static TARGET: Flag = Flag::value("target", "STAGE", "Build up to this stage");
static ULIMIT: Flag = Flag::many("ulimit", "NAME=SOFT[:HARD]", "Set a resource limit");

pub static BUILD: Command = Command {
    names: &["build", "image build", "builder build"],
    summary: "Build an image from a Dockerfile",
    usage: "[OPTIONS] PATH | URL | -",
    about: "The context is a directory, an archive or a Dockerfile on standard input (-), or the URL of one of the two. \
            What NAME.dockerignore beside the Dockerfile, or .dockerignore in the directory names is not sent.",
    flags: &[
        &ADD_HOST,
        &BUILD_ARG,
        &BUILDER,
        &CACHE_FROM,
        &CGROUP_PARENT,
        &COMPRESS,
        &CPU_PERIOD,
        &CPU_QUOTA,
        &CPU_SHARES,
        &CPUSET_CPUS,
        &CPUSET_MEMS,
        &CONTENT_TRUST,
        &FILE,
        &FORCE_RM,
        &IIDFILE,
        &ISOLATION,
        &LABEL,
        &LOAD,
        &MEMORY,
        &MEMORY_SWAP,
        &NETWORK,
        &NO_CACHE,
        &OUTPUT,
        &PLATFORM,
        &PROGRESS,
        &PULL,
        &PUSH,
        &QUIET,
        &RM,
        &SECRET,
        &SECURITY_OPT,
        &SHM_SIZE,
        &SQUASH,
        &SSH,
        &TAG,
        &TARGET,
        &ULIMIT,
    ],
    args: Args::exactly(1),
    example: "dewar build -t mine:1 .",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| build(context, request))
    },
};

/// A command line, understood.
#[derive(Debug)]
struct Request {
    query: BuildQuery,
    context: String,
    dockerfile: String,
    is_compressed: bool,
    is_quiet: bool,
    id_file: String,
    secrets: Vec<Secret>,
}

/// Where one secret is.
#[derive(Debug, PartialEq)]
struct Secret {
    id: String,
    file: Option<String>,
    variable: Option<String>,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    let number = |flag: &'static Flag| Ok::<_, Error>(matches.integer(flag)?.unwrap_or_default());
    let size = |flag: &'static Flag| Ok::<_, Error>(matches.read(flag, values::bytes)?.unwrap_or_default());
    let mut build_args = BTreeMap::new();
    for text in matches.read_all(&BUILD_ARG, values::env)? {
        match text.split_once('=') {
            Some((name, value)) => build_args.insert(name.to_owned(), Some(value.to_owned())),
            None => build_args.insert(text, None),
        };
    }
    matches.read(&PROGRESS, |kind| match kind {
        "auto" | "plain" | "tty" | "quiet" | "rawjson" => Ok(()),
        _ => Err("expected auto, plain or tty".to_owned()),
    })?;
    let platform = match matches.get(&PLATFORM) {
        Some(platform) => platform.to_owned(),
        None => std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
    };
    let query = BuildQuery {
        tags: matches.read_all(&TAG, |text| Reference::parse(text).map(|_| text.to_owned()))?,
        quiet: matches.is(&QUIET),
        no_cache: matches.is(&NO_CACHE),
        cache_from: words(&matches.list(&CACHE_FROM)),
        pull: matches.is(&PULL),
        // Docker leaves out what is so anyway.
        remove: (!matches.is(&RM)).then_some(false),
        force_remove: matches.is(&FORCE_RM),
        build_args,
        labels: values::map(matches.read_all(&LABEL, values::pair)?),
        target: matches.text(&TARGET),
        platform,
        network_mode: matches.get(&NETWORK).filter(|mode| *mode != "default").unwrap_or_default().to_owned(),
        extra_hosts: matches.read_all(&ADD_HOST, values::extra_host)?,
        memory: size(&MEMORY)?,
        memory_swap: matches.read(&MEMORY_SWAP, values::bytes_or_unlimited)?.unwrap_or_default(),
        cpu_shares: number(&CPU_SHARES)?,
        cpu_period: number(&CPU_PERIOD)?,
        cpu_quota: number(&CPU_QUOTA)?,
        cpuset_cpus: matches.text(&CPUSET_CPUS),
        cpuset_mems: matches.text(&CPUSET_MEMS),
        cgroup_parent: matches.text(&CGROUP_PARENT),
        shm_size: size(&SHM_SIZE)?,
        ulimits: matches.read_all(&ULIMIT, values::ulimit)?,
        security_opt: words(&matches.list(&SECURITY_OPT)),
        ..BuildQuery::default()
    };
    Ok(Request {
        query,
        context: matches.args[0].clone(),
        dockerfile: matches.text(&FILE),
        is_compressed: matches.is(&COMPRESS),
        is_quiet: matches.is(&QUIET),
        id_file: matches.text(&IIDFILE),
        secrets: matches.read_all(&SECRET, secret)?,
    })
}

/// Values that may be several in one, parted by commas.
fn words(texts: &[String]) -> Vec<String> {
    texts.iter().flat_map(|text| text.split(',')).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`. With neither it is the variable of that name, or the file.
fn secret(text: &str) -> Result<Secret, String> {
    let mut secret = Secret { id: String::new(), file: None, variable: None };
    let mut kind = "";
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => value.clone_into(&mut secret.id),
            "src" | "source" => secret.file = Some(value.to_owned()),
            "env" => secret.variable = Some(value.to_owned()),
            "type" if value == "file" || value == "env" => kind = value,
            "type" => return Err(format!("unsupported secret type {value:?}")),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if secret.id.is_empty() {
        return Err("id is required".to_owned());
    }
    if kind == "env" && secret.variable.is_none() {
        secret.variable = secret.file.take();
    }
    if secret.file.is_none() && secret.variable.is_none() {
        match kind == "env" || kind.is_empty() && std::env::var_os(&secret.id).is_some() {
            true => secret.variable = Some(secret.id.clone()),
            false => secret.file = Some(secret.id.clone()),
        }
    }
    Ok(secret)
}

/// Bytes of all secrets together: a request's head has room for so many.
const MOST_SECRETS: usize = 32 << 10;

/// The header that carries the secrets; `None` without any.
fn secrets_header(secrets: &[Secret]) -> Result<Option<String>, Error> {
    if secrets.is_empty() {
        return Ok(None);
    }
    let mut contents = BTreeMap::new();
    let mut total = 0;
    for secret in secrets {
        let content = match (&secret.file, &secret.variable) {
            (Some(path), _) => fs::read(path).map_err(|cause| Error::open(path, &cause))?,
            (None, Some(name)) => {
                std::env::var_os(name).map(|value| value.into_encoded_bytes()).ok_or_else(|| {
                    Error::Local(format!("secret {}: environment variable {name} is not set", secret.id))
                })?
            }
            (None, None) => Vec::new(),
        };
        total += content.len();
        if total > MOST_SECRETS {
            return Err(Error::Local(format!("secrets come to more than {MOST_SECRETS} bytes")));
        }
        contents.insert(secret.id.as_str(), STANDARD.encode(content));
    }
    let json = serde_json::to_vec(&contents).expect("a map of texts is JSON");
    Ok(Some(URL_SAFE.encode(json)))
}

fn build(context: &super::context::Context, request: Request) -> Result<u8, Error> {
    let Request { mut query, is_quiet, id_file, .. } = request;
    if !id_file.is_empty() {
        // What an earlier build wrote must not pass for this one's.
        match fs::remove_file(&id_file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(Error::local(
                    format!("Removing image ID file: remove {id_file}"),
                    go_cause(&cause),
                ));
            }
            _ => {}
        }
    }
    let prepared = context::prepare(&request.context, &request.dockerfile, request.is_compressed)?;
    (query.dockerfile, query.remote) = (prepared.dockerfile, prepared.remote);
    for proxy in context.config().proxies(&context.host()) {
        if let Some((name, value)) = proxy.split_once('=') {
            query.build_args.entry(name.to_owned()).or_insert_with(|| Some(value.to_owned()));
        }
    }
    let known = credentials::all(context.config())?;
    let mut context = context.with_header(CONFIG_HEADER, configs_to_header(&known));
    if let Some(header) = secrets_header(&request.secrets)? {
        context = context.with_header(SECRETS, header);
    }
    let answer = match prepared.body {
        Some(body) => context.upload(&IMAGE_BUILD, &[], &query, Sent::new(body, !is_quiet))?,
        None => context.stream(&IMAGE_BUILD, &[], &query, &())?,
    };
    let mut id = String::new();
    let mut quiet_output = String::new();
    let mut look = |message: &JsonMessage| {
        if let Some(found) = message.aux.as_ref().and_then(|aux| aux.get("ID")?.as_str()) {
            found.clone_into(&mut id);
        }
        if let Some(text) = message.stream.as_ref().filter(|_| is_quiet) {
            quiet_output.push_str(text);
        }
        progress::failure(message).map_or(Ok(()), Err)
    };
    match progress::follow(answer, is_quiet, io::stdout(), &mut look) {
        Ok(()) => {}
        Err(error) => {
            // Of a quiet build that fails everything is worth knowing.
            let _ = io::stderr().write_all(quiet_output.as_bytes());
            return Err(error);
        }
    }
    if is_quiet {
        print(&quiet_output)?;
    }
    if !id_file.is_empty() {
        if id.is_empty() {
            return Err(Error::Local(format!("Server did not provide an image ID. Cannot write {id_file}")));
        }
        fs::write(&id_file, &id).map_err(|cause| Error::open(&id_file, &cause))?;
    }
    Ok(0)
}

/// The context on its way, counted as docker counts it: on a terminal while it goes, elsewhere at the end.
struct Sent {
    body: Box<dyn Read + Send>,
    count: i64,
    told: i64,
    is_shown: bool,
    is_watched: bool,
}

impl Sent {
    /// Bytes between two counts on a terminal.
    const STEP: i64 = 512 << 10;

    fn new(body: Box<dyn Read + Send>, is_shown: bool) -> Sent {
        Sent { body, count: 0, told: 0, is_shown, is_watched: io::stdout().is_terminal() }
    }

    fn tell(&self, end: &str) {
        let line = format!("Sending build context to Docker daemon {:>8}\r{end}", size_total(self.count));
        // A reader of ours that has left is found out when something is printed that matters.
        let _ = print(&line);
    }
}

impl Read for Sent {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(into)?;
        self.count += count as i64;
        if !self.is_shown || into.is_empty() {
            return Ok(count);
        }
        if count == 0 {
            self.tell("\r\n");
            self.is_shown = false;
        } else if self.is_watched && self.count - self.told >= Sent::STEP {
            self.told = self.count;
            self.tell("");
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
