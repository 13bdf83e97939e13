//! `dewar system df`: what takes up the disk.
//!
//! ```text
//! TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE      one row per kind, or with -v
//! Images          4         1         1.987MB   1.987MB (100%)   one table per kind
//! ```
//!
//! Compat: rows, titles and sums are the docker client's. What images share is counted once.

use crate::http::api::container::ContainerSummary;
use crate::http::api::image::ImageSummary;
use crate::http::api::usage::{DataUsageQuery, SYSTEM_DATA_USAGE, SystemDataUsage};
use crate::http::api::volume::Volume;

use super::command::{Action, Args, Command, Flag};
use super::container::list;
use super::context::print;
use super::error::Error;
use super::format::template::Template;
use super::format::value::{Field, Value};
use super::format::{self, Column, Format, Row, size_decimal, size_total};
use super::image::name_and_tag;
use super::volume;

static FORMAT: Flag = Flag::value("format", "FORMAT", "Print as table, json or by a Go template");
static VERBOSE: Flag = Flag::switch("verbose", "Show each object").short('v');

pub static DF: Command = Command {
    names: &["system df"],
    summary: "Show what takes up the disk",
    usage: "[OPTIONS]",
    about: "",
    flags: &[&FORMAT, &VERBOSE],
    args: Args::NONE,
    example: "dewar system df -v",
    usage_code: 1,
    plan: |matches| {
        let format = Format::parse(matches.get(&FORMAT).unwrap_or_default())?;
        let is_verbose = matches.is(&VERBOSE);
        Action::call(move |context| {
            let usage = context.call(&SYSTEM_DATA_USAGE, &[], &DataUsageQuery::default(), &())?;
            let text = match is_verbose {
                true => verbose(&usage, &format)?,
                false => format.print(&summary(&usage), COLUMNS, &[])?,
            };
            print(&text).map(|()| 0)
        })
    },
};

const COLUMNS: &[Column] = &[
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

/// A sum of one kind of objects.
#[derive(Default)]
struct Sum {
    count: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
}

impl Sum {
    fn row(&self, kind: &str, with_share: bool) -> Row {
        let mut reclaimable = size_total(self.reclaimable);
        if with_share && self.size > 0 {
            reclaimable += &format!(" ({}%)", self.reclaimable.saturating_mul(100) / self.size);
        }
        fields([
            ("Type", kind.to_owned()),
            ("TotalCount", self.count.to_string()),
            ("Active", self.active.to_string()),
            ("Size", size_total(self.size)),
            ("Reclaimable", reclaimable),
        ])
    }
}

fn fields<const N: usize>(fields: [(&str, String); N]) -> Row {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn summary(usage: &SystemDataUsage) -> Vec<Row> {
    let mut images = Sum { size: usage.layers_size, reclaimable: usage.layers_size, ..Sum::default() };
    for image in usage.images.iter().flatten() {
        images.count += 1;
        if image.containers != 0 {
            images.active += usize::from(image.containers > 0);
            if image.size != -1 && image.shared_size != -1 {
                images.reclaimable -= image.size - image.shared_size;
            }
        }
    }
    let mut containers = Sum::default();
    for container in usage.containers.iter().flatten() {
        let size = container.size_rw.unwrap_or_default();
        let is_active = matches!(container.state.as_str(), "running" | "paused" | "restarting");
        containers.count += 1;
        containers.active += usize::from(is_active);
        containers.size += size;
        containers.reclaimable += if is_active { 0 } else { size };
    }
    let mut volumes = Sum::default();
    for volume in usage.volumes.iter().flatten() {
        let (links, size) = volume_usage(volume);
        volumes.count += 1;
        volumes.active += usize::from(links > 0);
        if size != -1 {
            volumes.size += size;
            volumes.reclaimable += if links == 0 { size } else { 0 };
        }
    }
    let mut caches = Sum::default();
    for cache in usage.build_cache.iter().flatten() {
        let (size, is_used) =
            (cache["Size"].as_i64().unwrap_or(0), cache["InUse"].as_bool().unwrap_or(false));
        caches.count += 1;
        caches.active += usize::from(is_used);
        caches.size += size;
        caches.reclaimable += if is_used { 0 } else { size };
    }
    vec![
        images.row("Images", true),
        containers.row("Containers", true),
        volumes.row("Local Volumes", true),
        caches.row("Build Cache", false),
    ]
}

const IMAGE_COLUMNS: &[Column] = &[
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
];
const CONTAINER_COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];
const VOLUME_COLUMNS: &[Column] = &[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")];
const CACHE_COLUMNS: &[Column] = &[
    ("CACHE ID", "ID"),
    ("CACHE TYPE", "CacheType"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
    ("LAST USED", "LastUsedSince"),
    ("USAGE", "UsageCount"),
    ("SHARED", "Shared"),
];

fn verbose(usage: &SystemDataUsage, format: &Format) -> Result<String, Error> {
    let is_table = matches!(format, Format::Table(None));
    let images = usage.images.iter().flatten().map(|image| image_row(image, is_table)).collect::<Vec<_>>();
    let containers =
        usage.containers.iter().flatten().map(|one| container_row(one, !is_table)).collect::<Vec<_>>();
    let volumes = usage.volumes.iter().flatten().map(volume_row).collect::<Vec<_>>();
    let caches = usage.build_cache.iter().flatten().map(cache_row).collect::<Vec<_>>();
    let cache_size = usage.build_cache.iter().flatten().filter_map(|cache| cache["Size"].as_i64()).sum();
    let field = |name: &str, rows: &[Row]| {
        let value = Value::List(rows.iter().map(Value::row).collect());
        Field { name: name.to_owned(), value, shown: true }
    };
    let value = || {
        Value::Struct(vec![
            field("Images", &images),
            field("Containers", &containers),
            field("Volumes", &volumes),
            field("BuildCache", &caches),
        ])
    };
    let render = |template: &Template| {
        template.render(&value()).map_err(|cause| Error::local("failed to execute template", cause))
    };
    match format {
        Format::Json => return Ok(value().json(true)),
        Format::Template(template) => return render(template),
        Format::Table(_) => {}
    }
    let table = |columns: &[Column], rows: &[Row]| Format::Table(None).print(rows, columns, &[]);
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         Build cache usage: {}\n\n{}",
        table(IMAGE_COLUMNS, &images)?,
        table(CONTAINER_COLUMNS, &containers)?,
        table(VOLUME_COLUMNS, &volumes)?,
        size_total(cache_size),
        table(CACHE_COLUMNS, &caches)?,
    ))
}

fn image_row(image: &ImageSummary, short: bool) -> Row {
    let (repository, tag) = match image.repo_tags.first().filter(|name| *name != "<none>:<none>") {
        Some(name) => name_and_tag(name),
        None => ("<none>".to_owned(), "<none>".to_owned()),
    };
    let shared = image.shared_size.max(0);
    fields([
        ("Repository", repository),
        ("Tag", tag),
        ("ID", if short { format::short_id(&image.id) } else { image.id.clone() }),
        ("Digest", String::new()),
        ("CreatedSince", format::ago(image.created)),
        ("CreatedAt", format::moment(image.created)),
        ("Size", size_decimal(image.size)),
        ("SharedSize", size_total(shared)),
        ("UniqueSize", size_total(image.size - shared)),
        ("VirtualSize", size_total(image.size)),
        ("Containers", image.containers.to_string()),
    ])
}

/// What a container wrote; the image below it has a row of its own.
fn container_row(container: &ContainerSummary, no_trunc: bool) -> Row {
    list::row(&ContainerSummary { size_root_fs: None, ..container.clone() }, no_trunc)
}

/// How many containers have a volume, and its bytes, -1 when nobody knows.
fn volume_usage(volume: &Volume) -> (i64, i64) {
    volume.usage_data.as_ref().map_or((-1, -1), |usage| (usage.ref_count, usage.size))
}

fn volume_row(volume: &Volume) -> Row {
    let (links, size) = volume_usage(volume);
    let mut row = volume::row(volume);
    row.insert("Links".to_owned(), links.to_string().into());
    row.insert("Size".to_owned(), if size < 0 { "N/A".to_owned() } else { size_total(size) }.into());
    row
}

/// A directory that builds keep.
fn cache_row(cache: &serde_json::Value) -> Row {
    let text = |name: &str| cache[name].as_str().unwrap_or_default().to_owned();
    let since = |name: &str| {
        let time = text(name).parse::<jiff::Timestamp>();
        time.map(|time| format!("{} ago", format::ago(time.as_second()).trim_end_matches(" ago")))
            .unwrap_or_default()
    };
    fields([
        ("ID", text("ID")),
        ("CacheType", text("Type")),
        ("Size", size_decimal(cache["Size"].as_i64().unwrap_or_default())),
        ("CreatedSince", since("CreatedAt")),
        ("LastUsedSince", since("LastUsedAt")),
        ("UsageCount", cache["UsageCount"].as_i64().unwrap_or_default().to_string()),
        ("Shared", cache["Shared"].as_bool().unwrap_or_default().to_string()),
        ("InUse", cache["InUse"].as_bool().unwrap_or_default().to_string()),
        ("Description", text("Description")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::volume::UsageData;

    fn usage() -> SystemDataUsage {
        let image = |size, shared_size, containers| ImageSummary {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: vec!["box:1".into()],
            size,
            shared_size,
            containers,
            ..ImageSummary::default()
        };
        let container = |state: &str, size| ContainerSummary {
            state: state.into(),
            size_rw: Some(size),
            size_root_fs: Some(size + 2000),
            names: vec!["/web".into()],
            ..ContainerSummary::default()
        };
        let volume = |ref_count, size| Volume {
            name: "v".into(),
            usage_data: Some(UsageData { ref_count, size }),
            ..Volume::default()
        };
        SystemDataUsage {
            layers_size: 3000,
            images: Some(vec![image(2000, 1000, 1), image(2000, 1000, 0)]),
            containers: Some(vec![container("running", 100), container("exited", 300)]),
            volumes: Some(vec![volume(1, 500), volume(0, 1500), volume(0, -1)]),
            build_cache: Some(Vec::new()),
        }
    }

    #[test]
    fn sums_are_dockers() {
        let rows = summary(&usage());
        let table = Format::parse("").unwrap().print(&rows, COLUMNS, &[]).unwrap();
        assert_eq!(
            table,
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         3kB       2kB (66%)\n\
             Containers      2         1         400B      300B (75%)\n\
             Local Volumes   3         1         2kB       1.5kB (75%)\n\
             Build Cache     0         0         0B        0B\n"
        );
        let template = Format::parse("{{.Type}} {{.Reclaimable}}").unwrap();
        assert!(template.print(&rows, COLUMNS, &[]).unwrap().ends_with("Build Cache 0B\n"));
    }

    #[test]
    fn each_object_is_shown_when_asked_for() {
        let text = verbose(&usage(), &Format::parse("").unwrap()).unwrap();
        assert!(
            text.contains(
                "box          1         0123456789ab   N/A       2kB       1kB           1kB           1\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("\nv             0         1.5kB\n")
                && text.contains("v             0         N/A\n"),
            "{text}"
        );
        assert!(!text.contains("virtual"));
        let json = verbose(&usage(), &Format::parse("json").unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["Images"][0]["ID"], "sha256:0123456789abcdef");
        let template = Format::parse("{{range .Containers}}{{.Size}} {{end}}").unwrap();
        assert_eq!(verbose(&usage(), &template).unwrap(), "100B 300B ");
    }
}
