//! What hostile archives, crashes and damaged files leave of a store.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Scratch, above, base, config, content, docker_archive, gzip, load, tar, unused};
use crate::daemon::images::{Digest, Store};
use crate::http::api::Class;
use crate::runtime::layer::Limits;
use crate::runtime::layer::tar::{Entry, Kind, Writer};

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
