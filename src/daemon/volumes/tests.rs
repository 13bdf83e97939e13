use super::*;
use crate::http::api::Filters;

struct Store {
    dir: PathBuf,
    volumes: Volumes,
    events: Bus,
}

impl Store {
    fn new(name: &str) -> Store {
        let dir = std::env::temp_dir().join(format!("dewar-volumes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Store { volumes: Volumes::open(&dir).unwrap(), dir, events: Bus::default() }
    }

    fn create(&self, name: &str, labels: &[&str]) -> Arc<Volume> {
        let labels = labels.iter().map(|label| label.split_once('=').unwrap_or((label, "")));
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let request = VolumeCreate { name: name.into(), labels: Some(labels), ..VolumeCreate::default() };
        self.volumes.create(&self.events, request).unwrap()
    }

    fn hold(&self, name: &str, holder: &str) -> Arc<Volume> {
        let request = VolumeCreate { name: name.into(), ..VolumeCreate::default() };
        self.volumes.acquire(&self.events, request, Some(holder), Durability::Renamed).unwrap()
    }

    fn refuse(&self, request: VolumeCreate) -> Error {
        self.volumes.create(&self.events, request).unwrap_err()
    }

    fn names(&self, filters: &[(&str, &str)]) -> Vec<String> {
        let volumes = self.volumes.list(&filters_of(filters)).unwrap();
        volumes.into_iter().map(|volume| volume.name).collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn filters_of(pairs: &[(&str, &str)]) -> Filters {
    let mut filters = Filters::default();
    pairs.iter().for_each(|(key, value)| filters.add(key, value));
    filters
}

#[test]
fn a_volume_is_made_once_and_found_again_by_the_next_daemon() {
    let store = Store::new("again");
    let volume = store.create("data", &["a=b"]);
    fs::write(volume.mountpoint().join("file"), "x").unwrap();
    assert!(Arc::ptr_eq(&volume, &store.create("data", &["other=1"])));
    fs::create_dir(store.dir.join(".new-1")).unwrap();
    fs::create_dir(store.dir.join(".gone-1")).unwrap();
    fs::create_dir(store.dir.join("stranger")).unwrap();
    let next = Volumes::open(&store.dir).unwrap();
    assert_eq!(next.list(&Filters::default()).unwrap(), [volume.shown()]);
    assert!(!store.dir.join(".new-1").exists() && !store.dir.join(".gone-1").exists());
    let (past, _) = store.events.subscribe().unwrap();
    assert_eq!(past.len(), 1, "{past:?}");
    // What could not be read is not made anew over what is there.
    fs::write(store.dir.join("stranger/file"), "").unwrap();
    store.refuse(VolumeCreate { name: "stranger".into(), ..VolumeCreate::default() });
    assert!(store.dir.join("stranger/file").exists());
}

#[test]
fn names_and_drivers_are_refused_in_dockers_words() {
    let store = Store::new("names");
    let refuse = |name: &str| store.refuse(VolumeCreate { name: name.into(), ..VolumeCreate::default() });
    assert_eq!(
        refuse("a").message,
        "create a: volume name is too short, names should be at least two alphanumeric characters"
    );
    for name in ["../up", ".hidden", "a/b", "a b", "-ab", &"x".repeat(256)] {
        let error = refuse(name);
        assert_eq!(error.class, Class::InvalidParameter, "{error}");
    }
    assert!(refuse("a/b").message.starts_with("create a/b: \"a/b\" includes invalid characters"));
    let error = store.refuse(VolumeCreate { name: "vv".into(), driver: "odd".into(), ..Default::default() });
    assert_eq!(error.message, "create vv: error looking up volume plugin odd: plugin \"odd\" not found");
    assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
}

#[test]
fn what_a_container_has_cannot_be_removed() {
    let store = Store::new("held");
    store.hold("data", "c1");
    store.hold("data", "c2");
    let error = store.volumes.remove(&store.events, "data", true).unwrap_err();
    assert_eq!(
        (error.class, error.message.as_str()),
        (Class::Conflict, "remove data: volume is in use - [c1, c2]")
    );
    store.volumes.release("data", "c1");
    store.volumes.release("data", "c2");
    store.volumes.remove(&store.events, "data", false).unwrap();
    assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 0);
    let error = store.volumes.remove(&store.events, "data", false).unwrap_err();
    assert_eq!((error.class, error.message.as_str()), (Class::NotFound, "get data: no such volume"));
    store.volumes.remove(&store.events, "data", true).unwrap();
}

#[test]
fn the_list_is_filtered() {
    let store = Store::new("list");
    store.create("data-a", &["team=x", "blue"]);
    store.create("data-b", &["team=y"]);
    store.hold("other", "c1");
    assert_eq!(store.names(&[]), ["data-a", "data-b", "other"]);
    assert_eq!(store.names(&[("dangling", "true")]), ["data-a", "data-b"]);
    assert_eq!(store.names(&[("dangling", "0")]), ["other"]);
    assert_eq!(store.names(&[("label", "team=x")]), ["data-a"]);
    assert_eq!(store.names(&[("label", "team"), ("label", "blue")]), ["data-a"]);
    assert_eq!(store.names(&[("name", "data"), ("name", "^other$")]), ["data-a", "data-b", "other"]);
    assert_eq!(store.names(&[("name", "-b$")]), ["data-b"]);
    assert_eq!(store.names(&[("driver", "odd")]), [""; 0]);
    for (key, value, text) in
        [("size", "1", "invalid filter 'size'"), ("dangling", "maybe", "invalid filter 'dangling=[maybe]'")]
    {
        assert_eq!(store.volumes.list(&filters_of(&[(key, value)])).unwrap_err().message, text);
    }
}

#[test]
fn prune_takes_what_has_no_name_unless_told_to_take_all() {
    let store = Store::new("prune");
    let anonymous = store.create("", &["keep"]).name.clone();
    assert!(names::is_id(&anonymous));
    let volume = store.create("named", &[]);
    fs::write(volume.mountpoint().join("file"), "12345").unwrap();
    store.hold("held", "c1");
    let device =
        [("type", "tmpfs"), ("device", "tmpfs")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let request =
        VolumeCreate { name: "mounted".into(), driver_opts: Some(device.into()), ..VolumeCreate::default() };
    store.volumes.create(&store.events, request).unwrap();
    let prune = |filters: &[(&str, &str)], all: bool| {
        store.volumes.prune(&store.events, &filters_of(filters), all).map_err(|error| error.message)
    };
    assert_eq!(prune(&[("label!", "keep")], false).unwrap().volumes_deleted, [""; 0]);
    assert_eq!(prune(&[], false).unwrap().volumes_deleted, [anonymous]);
    let pruned = prune(&[("all", "true")], false).unwrap();
    assert_eq!((pruned.volumes_deleted, pruned.space_reclaimed), (vec!["named".to_owned()], 5));
    assert_eq!(store.names(&[]), ["held", "mounted"]);
    assert_eq!(prune(&[("all", "x")], false).unwrap_err(), "invalid filter 'all=[x]'");
    assert_eq!(prune(&[("all", "1")], true).unwrap_err(), "invalid filter 'all'");
    assert_eq!(prune(&[("dangling", "1")], false).unwrap_err(), "invalid filter 'dangling'");
    let (past, _) = store.events.subscribe().unwrap();
    let last = past.iter().rev().find(|event| event.action == "prune").unwrap();
    assert_eq!(last.actor.attributes["reclaimed"], "5");
}

#[test]
fn usage_counts_bytes_and_containers() {
    let store = Store::new("usage");
    let volume = store.hold("data", "c1");
    fs::write(volume.mountpoint().join("file"), "1234567").unwrap();
    let usage = store.volumes.usage().remove(0).usage_data.unwrap();
    assert_eq!((usage.size, usage.ref_count), (7, 1));
}

#[test]
fn users_are_counted_by_container() {
    let store = Store::new("users");
    let volume = store.hold("data", "c1");
    assert!(volume.mount("c1").unwrap());
    assert!(!volume.mount("c1").unwrap());
    assert!(volume.unmount("c1"));
    assert!(!volume.unmount("c1"));
}
