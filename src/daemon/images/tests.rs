//! The store as its callers see it: what comes in, what can be asked, what goes, and what a crash or a
//! hostile archive leaves behind.

mod artifacts;
mod damage;

use std::io::{self, Write};
use std::process::{Command, Stdio};

use flate2::write::GzEncoder;

use super::load::LoadedImage;
use super::*;
use crate::http::api::Class;
use crate::http::api::Filters;
use crate::http::api::image::{ImageDeleteItem, JsonMessage};
use crate::runtime::layer::tar::{Entry, Kind, Writer};

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("dewar-images-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0.join("store")).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in members {
        let mut entry = Entry::new(*name, Kind::File, 0o644);
        entry.size = content.len() as u64;
        writer.append(&entry, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap().0
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(layers: &[&[u8]], extra: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let text = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z", "author": extra,
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Volumes": null, "Labels": {"l": extra}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "ADD base"}, {"created_by": "CMD", "empty_layer": true}, {"created_by": "RUN x"}],
    });
    serde_json::to_vec(&text).unwrap()
}

/// A docker-archive of two layers.
fn docker_archive(tag: &str, layers: [&[u8]; 2], extra: &str) -> Vec<u8> {
    let config = config(&layers, extra);
    let name = format!("{}.json", Digest::of(&config).hex());
    let table =
        serde_json::json!([{"Config": name, "RepoTags": [tag], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    tar(&[
        ("manifest.json", table.to_string().as_bytes()),
        ("a/layer.tar", layers[0]),
        ("b/layer.tar", &gzip(layers[1])),
        (&name, &config),
    ])
}

fn base() -> Vec<u8> {
    tar(&[("bin/sh", b"#!"), ("etc/motd", b"hi")])
}

fn above(text: &str) -> Vec<u8> {
    tar(&[("etc/.wh.motd", b""), ("app", text.as_bytes())])
}

fn load(store: &Store, archive: &[u8]) -> Result<Vec<LoadedImage>> {
    store.load(archive, None, &mut |_| {}).map(|loaded| loaded.images)
}

fn unused(_: &ImageId) -> Option<Usage> {
    None
}

/// Every path below the store that is not one of its fixed places.
fn content(store: &Store) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in ["blobs/sha256", "layers", artifact::BLOBS, "tmp"] {
        found.extend(fs::read_dir(store.root.join(place)).unwrap().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

#[test]
fn a_loaded_image_can_be_asked_about_and_outlives_the_process() {
    let scratch = Scratch::new("load");
    let store = scratch.store();
    let (base, above) = (base(), above("1"));
    let mut messages = Vec::new();
    let archive = docker_archive("tool:1", [&base, &above], "x");
    let loaded = store
        .load(gzip(&archive).as_slice(), None, &mut |message: JsonMessage| messages.push(message))
        .unwrap()
        .images;
    let id = loaded[0].id.clone();
    assert_eq!(messages.last().unwrap().stream.as_deref(), Some("Loaded image: tool:1\n"));
    assert_eq!(id, Digest::of(&config(&[&base, &above], "x")));

    for store in [store, scratch.store()] {
        for name in
            ["tool:1", "docker.io/library/tool:1", id.as_str(), id.hex(), id.short(), &id.as_str()[..20]]
        {
            assert_eq!(store.resolve(name).unwrap().id, id, "{name}");
        }
        for (name, class, text) in [
            ("tool", Class::NotFound, "No such image: tool:latest"),
            ("0000", Class::NotFound, "No such image: 0000:latest"),
            (
                "Tool",
                Class::InvalidParameter,
                "invalid reference format: repository name (library/Tool) must be lowercase",
            ),
        ] {
            let failure = store.resolve(name).unwrap_err();
            assert_eq!((failure.class, failure.message.as_str()), (class, text));
        }
        let image = store.resolve("tool:1").unwrap();
        assert_eq!(image.defaults().cmd.as_deref().unwrap(), ["sh"]);
        let layers = store.layers_of(&id).unwrap();
        assert_eq!(layers.len(), 2);
        assert!(layers[0].join("app").exists() && layers[1].join("bin/sh").exists(), "topmost first");
        let history = store.history("tool:1").unwrap();
        let shown: Vec<_> = history.iter().map(|item| (item.created_by.as_str(), item.size)).collect();
        assert_eq!(shown, [("RUN x", 1), ("CMD", 0), ("ADD base", 4)]);
        assert_eq!(history[0].tags.as_deref().unwrap(), ["tool:1"]);
        let inspect = store.inspect("tool:1").unwrap();
        assert_eq!(
            (inspect.size, inspect.root_fs.layers.len(), inspect.repo_tags.as_slice()),
            (5, 2, &["tool:1".to_owned()][..])
        );
        let listed = store.list(false, false, &Filters::default(), &|_| 7).unwrap();
        assert_eq!((listed.len(), listed[0].created, listed[0].containers), (1, 1_714_979_289, 7));
    }
}

#[test]
fn shared_layers_are_kept_once_and_go_with_their_last_image() {
    let scratch = Scratch::new("shared");
    let store = scratch.store();
    let base = base();
    let one = load(&store, &docker_archive("a:1", [&base, &above("1")], "x")).unwrap();
    let before = content(&store).len();
    load(&store, &docker_archive("b:1", [&base, &above("2")], "y")).unwrap();
    assert_eq!(content(&store).len(), before + 2, "one layer and one config");
    assert_eq!(store.list(false, false, &Filters::default(), &|_| 0).unwrap().len(), 2);

    let items = store.remove("a:1", false, false, &unused).unwrap();
    assert_eq!(items[0], ImageDeleteItem::Untagged("a:1".into()));
    assert_eq!(items[1], ImageDeleteItem::Deleted(one[0].id.to_string()));
    assert_eq!(items.len(), 3, "one layer of its own: {items:?}");
    assert_eq!(content(&store).len(), 3);
    store.remove("b:1", false, false, &unused).unwrap();
    assert_eq!(content(&store), Vec::<PathBuf>::new());
    assert!(store.remove("b:1", false, false, &unused).unwrap_err().message.starts_with("No such image"));
}

#[test]
fn removal_meets_dockers_conflicts() {
    let scratch = Scratch::new("conflicts");
    let store = scratch.store();
    let id = load(&store, &docker_archive("a:1", [&base(), &above("1")], "x")).unwrap()[0].id.clone();
    let short = id.short();
    let container = "c".repeat(64);
    let stopped = |_: &ImageId| Some(Usage { container: container.clone(), running: false });
    let running = |_: &ImageId| Some(Usage { container: container.clone(), running: true });
    let conflict = |name: &str, force: bool, usage: &dyn Fn(&ImageId) -> Option<Usage>| {
        let failure = store.remove(name, force, false, usage).unwrap_err();
        assert_eq!(failure.class, Class::Conflict);
        failure.message
    };
    assert_eq!(
        conflict("a:1", false, &stopped),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container cccccccccccc is using its referenced image {short}"
        )
    );
    assert_eq!(
        conflict(id.hex(), false, &stopped),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container cccccccccccc"
        )
    );
    assert_eq!(
        conflict(id.short(), true, &running),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container cccccccccccc"
        )
    );
    store.tag("a:1", "reg.example.com:5000/b", "").unwrap();
    assert_eq!(
        conflict(id.as_str(), false, &unused),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    // One of two names goes without asking anybody.
    let items = store.remove("a:1", false, false, &running).unwrap();
    assert_eq!(items, [ImageDeleteItem::Untagged("a:1".into())]);
    // By force the last name goes, but not what a running container stands on.
    let items = store.remove("reg.example.com:5000/b", true, false, &running).unwrap();
    assert_eq!(items, [ImageDeleteItem::Untagged("reg.example.com:5000/b:latest".into())]);
    let mut dangling = Filters::default();
    dangling.add("dangling", "true");
    assert_eq!(store.list(false, false, &dangling, &|_| 0).unwrap().len(), 1);
    assert_eq!(store.prune(&Filters::default(), &running).unwrap().images_deleted, []);
    let pruned = store.prune(&Filters::default(), &unused).unwrap();
    assert_eq!(pruned.space_reclaimed, 5);
    assert_eq!(content(&store), Vec::<PathBuf>::new());
}

#[test]
fn a_tag_moves_and_leaves_its_image_dangling() {
    let scratch = Scratch::new("tag");
    let store = scratch.store();
    let base = base();
    let first = load(&store, &docker_archive("a:1", [&base, &above("1")], "x")).unwrap()[0].id.clone();
    let second = load(&store, &docker_archive("a:1", [&base, &above("2")], "y")).unwrap()[0].id.clone();
    assert_eq!(store.resolve("a:1").unwrap().id, second);
    assert_eq!(store.references_of(&first), []);
    assert!(store.tag(first.hex(), "Bad", "").is_err());
    assert!(store.tag(first.hex(), "good", "b@d").is_err());
    assert_eq!(store.tag("nope", "good", "").unwrap_err().class, Class::NotFound);
    store.tag(first.hex(), "good", "v1").unwrap();
    let mut filters = Filters::default();
    filters.add("reference", "go*");
    assert_eq!(store.list(false, false, &filters, &|_| 0).unwrap()[0].repo_tags, ["good:v1"]);
    filters.add("nonsense", "1");
    assert_eq!(store.list(false, false, &filters, &|_| 0).unwrap_err().class, Class::InvalidParameter);
}

#[test]
fn an_import_is_an_image_of_one_layer() {
    let scratch = Scratch::new("import");
    let store = scratch.store();
    let options = Import {
        reference: Some(Reference::parse("made").unwrap().with_default_tag()),
        changes: vec!["CMD [\"a\"]".into(), "ENV B=c".into()],
        message: "why".into(),
        ..Import::default()
    };
    let id = store.import(gzip(&base()).as_slice(), &options, &mut |_| {}).unwrap();
    let image = store.resolve("made").unwrap();
    assert_eq!((&image.id, image.size), (&id, 4));
    assert_eq!(image.defaults().env, ["B=c"]);
    assert_eq!(image.config.history[0].comment, "why");
    assert_eq!(image.config.os, "linux");
    let bad = Import { changes: vec!["RUN x".into()], ..Import::default() };
    assert!(store.import(base().as_slice(), &bad, &mut |_| {}).is_err());
    let before = content(&store);
    assert!(store.import(&gzip(&base())[..80], &Import::default(), &mut |_| {}).is_err());
    assert_eq!(content(&store), before);
}

#[test]
fn what_is_saved_loads_again_and_is_the_same_every_time() {
    let scratch = Scratch::new("save");
    let store = scratch.store();
    let (base, above) = (base(), above("1"));
    let id = load(&store, &docker_archive("a:1", [&base, &above], "x")).unwrap()[0].id.clone();
    store.tag("a:1", "a", "2").unwrap();
    let mut saved = Vec::new();
    store.save(&["a".to_owned()], &mut saved).unwrap();
    let mut again = Vec::new();
    store.save(&["a:1".to_owned(), "a:2".to_owned()], &mut again).unwrap();
    assert!(saved == again);
    assert_eq!(store.save(&["b".to_owned()], io::sink()).unwrap_err().class, Class::NotFound);

    let other = Store::open(&scratch.0.join("other")).unwrap();
    let loaded = load(&other, &saved).unwrap();
    assert_eq!((&loaded[0].id, loaded[0].references.len()), (&id, 2));

    // The files changed under the store: no archive with a wrong digest leaves it.
    let layers = store.layers_of(&id).unwrap();
    fs::write(layers[0].join("app"), "2").unwrap();
    let failure = store.save(&["a".to_owned()], io::sink()).unwrap_err();
    assert!(failure.message.contains("not as they were unpacked"), "{failure}");
}

#[test]
fn threads_load_and_remove_the_same_layers() {
    let scratch = Scratch::new("threads");
    let store = scratch.store();
    let base = base();
    std::thread::scope(|scope| {
        for at in 0..4 {
            let (store, base) = (&store, &base);
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("t{at}:1");
                    load(store, &docker_archive(&name, [base, &above(&format!("{at}{round}"))], "x"))
                        .unwrap();
                    let image = store.resolve(&name).unwrap();
                    for layer in store.layers_of(&image.id).unwrap() {
                        assert!(layer.exists());
                    }
                    store.remove(&name, false, false, &unused).unwrap();
                }
            });
        }
    });
    assert_eq!(content(&store), Vec::<PathBuf>::new());
}

/// skopeo reads what is saved, and what it writes loads: both formats, same id.
#[test]
fn skopeo_and_the_store_understand_each_other() {
    if Command::new("skopeo").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skip: skopeo");
        return;
    }
    let scratch = Scratch::new("skopeo");
    let store = scratch.store();
    let id = load(&store, &docker_archive("tool:1", [&base(), &above("1")], "x")).unwrap()[0].id.clone();
    let path = |name: &str| scratch.0.join(name).display().to_string();
    store.save(&["tool:1".to_owned()], fs::File::create(path("saved.tar")).unwrap()).unwrap();
    let copy = |from: String, to: String| {
        let output = Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--quiet", &from, &to])
            .output()
            .unwrap();
        assert!(output.status.success(), "{from} {to}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let saved = format!("docker-archive:{}:tool:1", path("saved.tar"));
    copy(saved.clone(), format!("docker-archive:{}:back:1", path("docker.tar")));
    copy(saved, format!("oci-archive:{}:back:2", path("oci.tar")));
    copy(
        format!("oci-archive:{}", path("saved.tar")),
        format!("docker-archive:{}:oci:1", path("from-oci.tar")),
    );
    for (file, name) in [("docker.tar", "back:1"), ("from-oci.tar", "oci:1")] {
        let loaded = store.load(fs::File::open(path(file)).unwrap(), None, &mut |_| {}).unwrap().images;
        assert_eq!((&loaded[0].id, loaded[0].references[0].familiar().as_str()), (&id, name));
    }
    let other = Store::open(&scratch.0.join("other")).unwrap();
    let loaded = other.load(fs::File::open(path("oci.tar")).unwrap(), None, &mut |_| {}).unwrap().images;
    let image = other.get(&loaded[0].id).unwrap();
    assert_eq!(image.config.rootfs, store.get(&id).unwrap().config.rootfs);
    assert_eq!(image.size, 5);
}

/// Old archives have no digests: the id is that of the config Docker makes of them.
#[test]
fn archives_without_a_manifest_are_read() {
    let scratch = Scratch::new("legacy");
    let store = scratch.store();
    let (lower, upper) = ("1".repeat(64), "2".repeat(64));
    let base_json = format!(
        r#"{{"id":"{lower}","created":"2014-01-01T00:00:00Z","container_config":{{"Cmd":["/bin/sh","-c","ADD"]}},"architecture":"amd64","os":"linux","Size":7}}"#
    );
    let json = format!(
        r#"{{"id":"{upper}","parent":"{lower}","created":"2014-02-03T04:05:06Z","author":"me","config":{{"Cmd":["sh"],"Env":null}},"docker_version":"1.9.1","architecture":"amd64","os":"linux"}}"#
    );
    let archive = tar(&[
        (&format!("{upper}/VERSION"), b"1.0"),
        (&format!("{upper}/json"), json.as_bytes()),
        (&format!("{upper}/layer.tar"), &above("1")),
        (&format!("{lower}/VERSION"), b"1.0"),
        (&format!("{lower}/json"), base_json.as_bytes()),
        (&format!("{lower}/layer.tar"), &base()),
        ("repositories", format!(r#"{{"old/box":{{"latest":"{upper}","1":"{upper}"}}}}"#).as_bytes()),
    ]);
    let loaded = load(&store, &archive).unwrap();
    let image = store.resolve("old/box:1").unwrap();
    assert_eq!((loaded.len(), &loaded[0].id, loaded[0].references.len()), (1, &image.id, 2));
    assert_eq!(image.config.rootfs.diff_ids, [Digest::of(&base()), Digest::of(&above("1"))]);
    assert_eq!(image.defaults().cmd.as_deref(), Some(&["sh".to_owned()][..]));
    let steps: Vec<_> = image.config.history.iter().map(|step| step.created_by.as_str()).collect();
    assert_eq!(steps, ["/bin/sh -c ADD", ""]);
    let wanted = format!(
        r#"{{"architecture":"amd64","author":"me","config":{{"Cmd":["sh"],"Env":null}},"created":"2014-02-03T04:05:06Z","docker_version":"1.9.1","history":[{{"created":"2014-01-01T00:00:00Z","created_by":"/bin/sh -c ADD"}},{{"author":"me","created":"2014-02-03T04:05:06Z"}}],"os":"linux","rootfs":{{"diff_ids":["{}","{}"],"type":"layers"}}}}"#,
        Digest::of(&base()),
        Digest::of(&above("1"))
    );
    assert_eq!(image.id, Digest::of(wanted.as_bytes()));
}

#[test]
fn an_image_for_another_platform_is_refused_when_one_is_named() {
    let scratch = Scratch::new("platform");
    let store = scratch.store();
    let archive = docker_archive("a:1", [&base(), &above("1")], "x");
    let (arm, amd) = (Platform::parse("linux/arm64").unwrap(), Platform::parse("linux/amd64").unwrap());
    let failure = store.load(archive.as_slice(), Some(&arm), &mut |_| {}).unwrap_err();
    let wanted = "image with reference a:1 was found but its platform (linux/amd64) does not match the specified \
                  platform (linux/arm64)";
    assert_eq!((failure.message.as_str(), failure.class), (wanted, Class::NotFound));
    assert_eq!(content(&store), Vec::<PathBuf>::new());
    store.load(archive.as_slice(), Some(&amd), &mut |_| {}).unwrap();
    let names = ["a:1".to_owned()];
    assert_eq!(store.check_names(&names, Some(&arm)).unwrap_err().message, wanted);
    store.check_names(&names, Some(&amd)).unwrap();
    for text in ["linux/arm64", r#"{"os":"linux","architecture":"arm64","variant":null}"#] {
        assert_eq!(Platform::from_query(text).unwrap(), Some(arm.clone()));
    }
    assert!(Platform::from_query("{").is_err());
}

#[test]
fn a_name_that_moves_by_loading_is_told() {
    let scratch = Scratch::new("renamed");
    let store = scratch.store();
    let before = load(&store, &docker_archive("a:1", [&base(), &above("1")], "x")).unwrap()[0].id.clone();
    let mut told = Vec::new();
    let archive = docker_archive("a:1", [&base(), &above("2")], "x");
    store.load(archive.as_slice(), None, &mut |message| told.extend(message.stream)).unwrap();
    let wanted =
        format!("The image a:1 already exists, renaming the old one with ID {before} to empty string\n");
    assert_eq!(told, [wanted.as_str(), "Loaded image: a:1\n"]);
}

#[test]
fn packed_forms_of_a_layer_are_remembered_and_bounded() {
    let scratch = Scratch::new("packed");
    let store = scratch.store();
    let mut pins = Pins::new(&store);
    let diff_id = store.add_layer(&base()[..], None, &mut pins).unwrap().diff_id;
    let remember = |number: u8, from: &str| {
        let form = packed::Packed {
            digest: Digest::of(&[number]),
            size: 1,
            media_type: config::OCI_LAYER_GZIP.to_owned(),
            from: vec![from.to_owned()],
        };
        store.remember_packed(&diff_id, &form).unwrap();
    };
    remember(1, "a/x");
    remember(2, "a/y");
    remember(1, "b/x");
    remember(1, "b/x");
    let known = store.layer(&diff_id).unwrap().packed;
    let places: Vec<_> = known.iter().map(|form| form.from.join(" ")).collect();
    assert_eq!(places, ["a/x b/x", "a/y"]);
    (3..30).for_each(|number| remember(number, "c"));
    assert_eq!(store.layer(&diff_id).unwrap().packed.len(), 16);
    // What a push writes for it is the layer still.
    assert_eq!(store.write_layer(&diff_id, io::sink()).unwrap(), base().len() as u64);
}
