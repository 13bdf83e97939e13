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
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{}}}]}}"#,
            manifest.len()
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
    // An image of one layer, whose descriptors promise what is said.
    let promised = |config_size: usize, layer_size: usize, layer: &[u8]| {
        let config = config(&[&base], "");
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}]}}"#,
            Digest::of(&config),
            config.len() + config_size,
            Digest::of(layer),
            layer.len() + layer_size
        );
        let mut members = oci(&manifest);
        // What ends an archive gives way to what goes on.
        members.truncate(members.len() - 1024);
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        [members, tar(&[(&blob(&config), &config), (&blob(layer), layer)])].concat()
    };
    let packed = gzip(&base);
    let mut twice = base.clone();
    twice.extend_from_slice(&base);
    let artifact = |size: usize| {
        let blob = b"blob".as_slice();
        let manifest = format!(
            r#"{{"schemaVersion":2,"artifactType":"x/y","config":{{"mediaType":"x/y","digest":"{0}","size":4}},"layers":[{{"mediaType":"x/z","digest":"{0}","size":{size}}}]}}"#,
            Digest::of(blob)
        );
        let mut members = oci(&manifest);
        members.truncate(members.len() - 1024);
        [members, tar(&[(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob)])].concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("neither manifest.json nor index.json", tar(&[("x", b"")])),
        ("not a tar archive", b"not an archive in any way".repeat(50)),
        ("the archive is truncated", whole[..whole.len() / 2].to_vec()),
        ("read archive", b"\xfd7zXZ\0....".to_vec()),
        ("read archive", b"BZh91AY&SY....".to_vec()),
        ("read archive", b"\x28\xb5\x2f\xfd\xff...".to_vec()),
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
        ("has no file \"blobs/sha256/", described("application/vnd.cncf.helm.config.v1+json", "text/plain")),
        (
            "it has 4 bytes where 5 are promised",
            artifact(5),
        ),
        ("bytes where", promised(1, 0, &packed)),
        ("bytes where", promised(0, 1, &packed)),
        ("the archive is truncated", promised(0, 0, &packed[..packed.len() / 2])),
        ("corrupt", promised(0, 0, &[&packed[..packed.len() - 8], [0; 8].as_slice()].concat())),
        ("its content has digest", promised(0, 0, &gzip(&twice))),
        ("not a tar archive", promised(0, 0, &gzip(b"no archive".repeat(100).as_slice()))),
        ("more than 4194304 bytes", promised(0, 0, &gzip(&[base.as_slice(), &vec![0; 5 << 20]].concat()))),
        (
            "has no file",
            oci(&r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0","size":1},"layers":[]}"#
                .replace("sha256:0", Digest::of(b"").as_str())),
        ),
        ("is no image manifest", oci(r#"{"schemaVersion":2,"mediaType":"text/plain","config":{"mediaType":"a","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1},"layers":[]}"#)),
        ("is no sha256 digest", oci(r#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"md5:1","size":1},"layers":[]}"#)),
        ("read image manifest", oci("[]")),
        ("nested too deep", {
            // An index that is its own member cannot be: one whose digest is not its content's is refused first.
            let mut inner = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
            let mut members = Vec::new();
            for _ in 0..6 {
                let digest = Digest::of(inner.as_bytes());
                members.push((format!("blobs/sha256/{}", digest.hex()), inner.clone()));
                inner = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":{}}}]}}"#, inner.len());
            }
            members.push(("index.json".to_owned(), inner));
            let members: Vec<_> = members.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
            tar(&members)
        }),
        ("its name is no id", tar(&[("repositories", br#"{"a":{"1":"../../etc"}}"#)])),
        ("read repositories", tar(&[("repositories", b"[]")])),
        ("more than 500 layers", {
            let id = "a".repeat(64);
            let json = format!(r#"{{"id":"{id}","parent":"{id}"}}"#);
            tar(&[
                ("repositories", format!(r#"{{"a":{{"1":"{id}"}}}}"#).as_bytes()),
                (&format!("{id}/json"), json.as_bytes()),
            ])
        }),
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
        let loaded = store.load(fs::File::open(path(file)).unwrap(), None, &mut |_| {}).unwrap().images;
        assert_eq!((&loaded[0].id, loaded[0].references[0].familiar().as_str()), (&id, name));
    }
    let other = Store::open(&scratch.0.join("other")).unwrap();
    let loaded = other.load(fs::File::open(path("oci.tar")).unwrap(), None, &mut |_| {}).unwrap().images;
    let image = other.get(&loaded[0].id).unwrap();
    assert_eq!(image.config.rootfs, store.get(&id).unwrap().config.rootfs);
    assert_eq!(image.size, 5);
}

/// An OCI layout in a tar: an artifact of two blobs, about another, and its name.
fn artifact_layout(annotations: &str, content: &[u8]) -> (Vec<u8>, Digest) {
    let config = b"{}".as_slice();
    let manifest = format!(
        r#"{{ "schemaVersion": 2, "artifactType": "application/vnd.example.dump", "unknown": [1],
             "config": {{"mediaType": "application/vnd.oci.empty.v1+json", "digest": "{}", "size": 2, "data": "e30="}},
             "layers": [{{"mediaType": "application/vnd.example.pages", "digest": "{}", "size": {}}}],
             "subject": {{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{}", "size": 7}},
             "annotations": {{"org.opencontainers.image.created": "2024-05-06T07:08:09Z", "a": "b"}} }}"#,
        Digest::of(config),
        Digest::of(content),
        content.len(),
        Digest::of(b"subject"),
    );
    let digest = Digest::of(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{},"artifactType":"application/vnd.example.dump","annotations":{{{annotations}}}}}]}}"#,
        manifest.len()
    );
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let tar = tar(&[
        ("index.json", index.as_bytes()),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        (&name(manifest.as_bytes()), manifest.as_bytes()),
        (&name(config), config),
        (&name(content), content),
    ]);
    (tar, digest)
}

/// The member of this name in an archive.
fn member(archive: &[u8], name: &str) -> Vec<u8> {
    let mut reader = crate::runtime::layer::tar::Reader::new(archive, Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry.path == name.as_bytes() {
            let mut content = vec![0; entry.size as usize];
            let mut filled = 0;
            while filled < content.len() {
                filled += reader.read(&mut content[filled..]).unwrap();
            }
            return content;
        }
    }
    panic!("no {name}");
}

#[test]
fn artifacts_are_kept_beside_the_images_and_carried_through() {
    let scratch = Scratch::new("artifacts");
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let named = r#""io.containerd.image.name":"docker.io/me/dump:1","x":"y""#;
    let (archive, digest) = artifact_layout(named, &content);
    let store = scratch.store();
    let loaded = store.load(archive.as_slice(), None, &mut |_| {}).unwrap();
    assert!(loaded.images.is_empty());
    assert_eq!(loaded.artifacts[0].name(), "me/dump:1");
    let image = load(&store, &docker_archive("tool:1", [&base(), &above("1")], "x")).unwrap()[0].id.clone();

    // The next daemon has it too, and its sweep leaves the blobs.
    drop(store);
    let store = scratch.store();
    let artifact = store.artifact("me/dump:1").unwrap();
    assert_eq!(artifact, store.artifact(digest.short()).unwrap());
    assert_eq!(artifact.descriptor.digest, digest);
    assert_eq!(artifact.descriptor.annotations["x"], "y");
    assert_eq!(artifact.manifest.kind(), "application/vnd.example.dump");
    assert_eq!(artifact.manifest.subject.as_ref().unwrap().digest, Digest::of(b"subject"));
    let blob = artifact.manifest.blobs().nth(1).unwrap();
    let mut read = Vec::new();
    store.write_artifact_blob(blob, &mut read).unwrap();
    assert!(read == content);
    assert_eq!(store.images().len(), 1);
    let shown = store.artifacts();
    assert_eq!((shown.len(), shown[0].repo_tags[0].as_str()), (1, "me/dump:1"));
    assert_eq!(shown[0].created, 1_714_979_289);

    // Saved beside an image, and loaded elsewhere: byte for byte the same.
    let mut saved = Vec::new();
    let names = ["tool:1".to_owned(), "me/dump:1".to_owned()];
    assert_eq!(store.save(&names, &mut saved).unwrap(), [image]);
    let manifest = format!("blobs/sha256/{}", digest.hex());
    assert_eq!(member(&saved, &manifest), member(&archive, &manifest));
    let other = Store::open(&scratch.0.join("other")).unwrap();
    let loaded = other.load(saved.as_slice(), None, &mut |_| {}).unwrap();
    assert_eq!((loaded.images.len(), loaded.artifacts.len()), (1, 1));
    assert_eq!(other.artifact("me/dump:1").unwrap().descriptor.annotations["x"], "y");

    // A second name keeps the blobs; the last one takes them along.
    let (unnamed, _) = artifact_layout(r#""org.opencontainers.image.ref.name":"v1""#, &content);
    let loaded = store.load(unnamed.as_slice(), None, &mut |_| {}).unwrap();
    assert_eq!(loaded.artifacts[0].name(), digest.to_string());
    let items = store.remove("me/dump:1", false, false, &unused).unwrap();
    assert!(matches!(&items[..], [ImageDeleteItem::Untagged(name)] if name == "me/dump:1"), "{items:?}");
    let blobs = || fs::read_dir(store.root.join(artifact::BLOBS)).unwrap().count();
    assert_eq!(blobs(), 3);
    assert_eq!(store.remove(digest.as_str(), false, false, &unused).unwrap().len(), 2);
    assert_eq!(blobs(), 0);
    assert_eq!(store.remove("me/dump:1", false, false, &unused).unwrap_err().class, Class::NotFound);
}

#[test]
fn a_damaged_table_of_artifacts_costs_their_names_only() {
    let scratch = Scratch::new("artifact-damage");
    let (archive, digest) = artifact_layout(r#""io.containerd.image.name":"docker.io/me/dump:1""#, b"pages");
    let table = {
        let store = scratch.store();
        store.load(archive.as_slice(), None, &mut |_| {}).unwrap();
        store.root.join("artifacts/references.json")
    };
    fs::write(&table, "{").unwrap();
    let store = scratch.store();
    assert_eq!(store.artifact(digest.as_str()).unwrap().reference, None);
    drop(store);
    // A later dewar's table is left alone, and so is everything it may lead to.
    fs::write(&table, r#"{"format": 99, "artifacts": {}}"#).unwrap();
    let store = scratch.store();
    assert!(store.load(archive.as_slice(), None, &mut |_| {}).is_err());
    assert_eq!(fs::read_dir(store.root.join(artifact::BLOBS)).unwrap().count(), 3);
    assert!(fs::read_to_string(&table).unwrap().contains("99"));
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
