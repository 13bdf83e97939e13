//! The store as its callers see it: what comes in, what can be asked, what goes, and what a crash or a
//! hostile archive leaves behind.

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
    store.load(archive, &mut |_| {})
}

fn unused(_: &ImageId) -> Option<Usage> {
    None
}

/// Every path below the store that is not one of its fixed places.
fn content(store: &Store) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in ["blobs/sha256", "layers", "tmp"] {
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
    let loaded =
        store.load(gzip(&archive).as_slice(), &mut |message: JsonMessage| messages.push(message)).unwrap();
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

/// Each archive is refused in its own words, and nothing of it stays.
#[test]
fn hostile_archives_leave_nothing_behind() {
    let scratch = Scratch::new("hostile");
    let store =
        Store::open_with(&scratch.0.join("store"), Limits { entries: 100, bytes: 4 << 20, name: 1024 })
            .unwrap();
    let (base, above) = (base(), above("1"));
    let good = config(&[&base, &above], "x");
    let table = |config: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":["a:1"],"Layers":["l0","l1"]}}]"#).into_bytes()
    };
    let escape = tar(&[("../../../../escaped", b"x")]);
    let mut linked = Writer::new(Vec::new());
    let mut entry = Entry::new("l0", Kind::Symlink, 0o777);
    entry.link = b"l0".to_vec();
    linked.append(&entry, &mut io::empty()).unwrap();
    let mut bytes = table("c").as_slice().to_vec();
    for (name, content) in [("manifest.json", &mut bytes), ("c", &mut good.clone())] {
        let mut entry = Entry::new(name, Kind::File, 0o644);
        entry.size = content.len() as u64;
        linked.append(&entry, &mut content.as_slice()).unwrap();
    }
    let linked = linked.finish().unwrap().0;
    let bomb = gzip(&tar(&[("zeros", &vec![0; 3 << 20])]));
    let bombs = config(&[b"", b""], "x");
    let whole = docker_archive("a:1", [&base, &above], "x");
    let schema1 = br#"{"schemaVersion":1,"manifests":[]}"#;
    let oci = |manifest: &str| {
        let digest = Digest::of(manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1}}]}}"#
        );
        tar(&[
            ("index.json", index.as_bytes()),
            (&format!("blobs/sha256/{}", digest.hex()), manifest.as_bytes()),
        ])
    };
    let described = |config: &str, layer: &str| {
        oci(&format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{0}","size":1}},"layers":[{{"mediaType":"{layer}","digest":"{0}","size":1}}]}}"#,
            Digest::of(b"")
        ))
    };
    let c = Digest::of(b"c");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("neither manifest.json nor index.json", tar(&[("x", b"")])),
        ("not a tar archive", b"not an archive in any way".repeat(50)),
        ("the archive is truncated", whole[..whole.len() / 2].to_vec()),
        ("compressed with xz", b"\xfd7zXZ\0....".to_vec()),
        ("read manifest.json", tar(&[("manifest.json", b"{}")])),
        ("no image in it", tar(&[("manifest.json", b"[]")])),
        ("has no file \"c\"", tar(&[("manifest.json", &table("c"))])),
        ("has no file \"../c\"", tar(&[("manifest.json", &table("../c"))])),
        ("has no file \"l1\"", tar(&[("manifest.json", &table("c")), ("c", &good), ("l0", &base)])),
        ("read image config", tar(&[("manifest.json", &table("c")), ("c", b"[1]")])),
        ("rootfs is of type", tar(&[("manifest.json", &table("c")), ("c", b"{}")])),
        (
            "has 2 layers but its config names 1",
            tar(&[
                ("manifest.json", &table("c")),
                ("c", &config(&[&base], "")),
                ("l0", &base),
                ("l1", &above),
            ]),
        ),
        (
            "its content has digest",
            tar(&[("manifest.json", &table("c")), ("c", &good), ("l0", &base), ("l1", &base)]),
        ),
        (
            "its content has digest",
            tar(&[
                ("manifest.json", &table(&format!("{}.json", c.hex()))),
                (&format!("{}.json", c.hex()), &good),
                ("l0", &base),
                ("l1", &above),
            ]),
        ),
        ("its content has digest", tar(&[(&format!("blobs/sha256/{}", c.hex()), b"other")])),
        (
            "leads out by \"..\"",
            tar(&[
                ("manifest.json", &table("c")),
                ("c", &config(&[&base, &escape], "")),
                ("l0", &base),
                ("l1", &escape),
            ]),
        ),
        ("a link that leads nowhere", linked),
        ("5242880 bytes", gzip(&tar(&[("x", &vec![0; 5 << 20])]))),
        ("digest", tar(&[("manifest.json", &table("c")), ("c", &bombs), ("l0", &bomb), ("l1", &bomb)])),
        ("more than 100 entries", tar(&vec![("x", &b""[..]); 101])),
        ("schema version 1", tar(&[("index.json", schema1)])),
        (
            "is no image config",
            described("application/vnd.cncf.helm.config.v1+json", "application/vnd.oci.image.layer.v1.tar"),
        ),
        (
            "foreign layer",
            described(
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            ),
        ),
        ("has unknown type", described("application/vnd.oci.image.config.v1+json", "text/plain")),
        (
            "invalid reference format",
            tar(&[
                ("manifest.json", br#"[{"Config":"c","RepoTags":["A:1"],"Layers":["l0","l1"]}]"#),
                ("c", &good),
                ("l0", &base),
                ("l1", &above),
            ]),
        ),
    ];
    for (at, (wanted, archive)) in cases.into_iter().enumerate() {
        let failure = load(&store, &archive).unwrap_err();
        assert!(failure.message.contains(wanted), "case {at}: {failure}");
        assert_eq!(failure.class, Class::InvalidParameter, "case {at}: {failure}");
        assert_eq!(content(&store), Vec::<PathBuf>::new(), "case {at}");
    }
    assert!(!scratch.0.join("escaped").exists());
    assert!(store.images().is_empty());
    load(&store, &whole).unwrap();
    let roomy = Store::open(&scratch.0.join("roomy")).unwrap();
    let failure = load(&roomy, &gzip(&tar(&[("manifest.json", &vec![b' '; 5 << 20])]))).unwrap_err();
    assert!(failure.message.ends_with("too many for what it is"), "{failure}");
    assert_eq!(content(&roomy), Vec::<PathBuf>::new());
}

#[test]
fn opening_sweeps_what_a_crash_left() {
    let scratch = Scratch::new("crash");
    let store = scratch.store();
    load(&store, &docker_archive("a:1", [&base(), &above("1")], "x")).unwrap();
    let before = content(&store);
    fs::create_dir_all(store.root.join("tmp/7/diff/deep")).unwrap();
    fs::create_dir_all(store.root.join("layers").join(Digest::of(b"x").hex()).join("diff")).unwrap();
    fs::write(store.root.join("blobs/sha256").join(Digest::of(b"y").hex()), "y").unwrap();
    drop(store);
    let store = scratch.store();
    assert_eq!(content(&store), before);
    assert_eq!(store.images().len(), 1);
}

#[test]
fn damage_costs_one_image_until_it_is_loaded_again() {
    let scratch = Scratch::new("damage");
    let store = scratch.store();
    let archive = docker_archive("a:1", [&base(), &above("1")], "x");
    let id = load(&store, &archive).unwrap()[0].id.clone();
    let other = load(&store, &docker_archive("b:1", [&tar(&[("b", b"b")]), &above("2")], "y")).unwrap();
    let (other, layer) = (other[0].id.clone(), store.layer_dir(&Digest::of(&base())));
    let blob = store.root.join("blobs/sha256").join(id.hex());
    let damage: [(&str, &dyn Fn()); 3] = [
        ("a layer's files are gone", &|| fs::remove_dir_all(&layer).unwrap()),
        ("a layer's record and its recipe are empty", &|| {
            fs::write(layer.join("layer.json"), "").unwrap();
            fs::write(layer.join("split.gz"), "").unwrap();
        }),
        ("the config has other content", &|| fs::write(&blob, "{}").unwrap()),
    ];
    for (what, damage) in damage {
        damage();
        let store = scratch.store();
        let ids = |store: &Store| store.images().iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&store), std::slice::from_ref(&other), "{what}");
        // Its name outlives other changes, and what it has is not swept.
        store.tag("b:1", "c", "1").unwrap();
        assert!(store.layer_dir(&Digest::of(&above("1"))).join("diff/app").exists(), "{what}");
        assert_eq!(ids(&scratch.store()), std::slice::from_ref(&other), "{what}");
        load(&store, &archive).unwrap();
        assert_eq!(store.resolve("a:1").unwrap().id, id, "{what}");
        assert_eq!(scratch.store().resolve("a:1").unwrap().id, id, "{what}");
    }
    // One that is not wanted back can be removed.
    fs::write(&blob, "").unwrap();
    let store = scratch.store();
    assert_eq!(store.resolve("a:1").unwrap_err().class, Class::NotFound);
    assert_eq!(store.remove("a:1", false, false, &unused).unwrap().len(), 2);
    assert!(!layer.exists(), "its layers go with it");
    assert_eq!(scratch.store().images().len(), 1);
}

#[test]
fn a_layers_record_is_made_again_from_its_files() {
    let scratch = Scratch::new("mend");
    let store = scratch.store();
    load(&store, &docker_archive("a:1", [&base(), &above("1")], "x")).unwrap();
    let path = store.layer_dir(&Digest::of(&base())).join("layer.json");
    let before = fs::read(&path).unwrap();
    for broken in ["", "{\"format\":1", "\0\0\0"] {
        fs::write(&path, broken).unwrap();
        assert_eq!(scratch.store().images().len(), 1, "{broken:?}");
        assert_eq!(fs::read(&path).unwrap(), before, "{broken:?}");
    }
    // A later dewar's is not touched.
    fs::write(&path, r#"{"format":9}"#).unwrap();
    assert!(scratch.store().images().is_empty());
    assert_eq!(fs::read(&path).unwrap(), br#"{"format":9}"#);
}

#[test]
fn the_table_of_images_is_made_again_and_a_later_one_is_left_alone() {
    let scratch = Scratch::new("table");
    let store = scratch.store();
    let id = load(&store, &docker_archive("a:1", [&base(), &above("1")], "x")).unwrap()[0].id.clone();
    store.tag("a:1", "b", "2").unwrap();
    let path = store.root.join("references.json");
    for broken in ["", "{", "\0\0"] {
        fs::write(&path, broken).unwrap();
        let store = scratch.store();
        // The names are those of one change ago.
        assert_eq!(store.resolve("a:1").unwrap().id, id, "{broken:?}");
        store.tag("a:1", "b", "2").unwrap();
    }
    let kept = fs::read_dir(&store.root).unwrap().flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains(".broken")).count();
    assert_eq!(kept, 3, "what made no sense is kept");
    let later = r#"{"format":2,"images":"all"}"#;
    fs::write(&path, later).unwrap();
    let store = scratch.store();
    assert!(store.images().is_empty());
    let refused = load(&store, &docker_archive("n:1", [&base(), &above("3")], "z")).unwrap_err();
    assert!(refused.message.contains("written in format 2"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), later);
    assert!(store.layer_dir(&Digest::of(&above("1"))).exists(), "nothing is swept");
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
        let loaded = store.load(fs::File::open(path(file)).unwrap(), &mut |_| {}).unwrap();
        assert_eq!((&loaded[0].id, loaded[0].references[0].familiar().as_str()), (&id, name));
    }
    let other = Store::open(&scratch.0.join("other")).unwrap();
    let loaded = other.load(fs::File::open(path("oci.tar")).unwrap(), &mut |_| {}).unwrap();
    let image = other.get(&loaded[0].id).unwrap();
    assert_eq!(image.config.rootfs, store.get(&id).unwrap().config.rootfs);
    assert_eq!(image.size, 5);
}
